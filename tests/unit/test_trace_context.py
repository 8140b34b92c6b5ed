"""What a trace context takes from peers, and what it leaves out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py.wire.trace_context import TraceContext, current_trace
from snakepit_trio.telemetry import correlated, correlation_id, trace_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (PARENT, PARENT),
        (f"cc-{TRACE}-{SPAN}-01-more", PARENT),
        (f"cc-{TRACE}-{SPAN}-01", PARENT),
        (f"cc-{TRACE}-{SPAN}-01more", ""),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (PARENT.upper(), ""),
        (f"{PARENT}\n", ""),
        (f" {PARENT}", ""),
        (PARENT[:-1], ""),
        (f"cc-{TRACE}-{SPAN}-01-" + "x" * 600, ""),
    ],
)
def test_traceparents(given: str, taken: str) -> None:
    assert TraceContext("", given).traceparent == taken


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("tenant@system=a b", "tenant@system=a b"),
        (",, a=1 ,", "a=1"),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=", ""),
        ("a=b=c", ""),
        ("a=1\nb: 2", ""),
        (",".join(f"k{n}=1" for n in range(33)), ""),
        ("a=" + "x" * 300, ""),
        ("a=1," + "b=" + "x" * 600, ""),
    ],
)
def test_tracestates(given: str, taken: str) -> None:
    assert TraceContext("", PARENT, given).tracestate == taken
    assert TraceContext("", "", given).tracestate == ""


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("a=1,b=2;property;with=value", "a=1,b=2;property;with=value"),
        ("a = %20b , c=", "a = %20b,c="),
        ("a=x y", ""),
        ('a="x"', ""),
        ("a", ""),
        ("a=1\r\nb=2", ""),
        ("a=é", ""),
        (",".join(f"k{n}=1" for n in range(65)), ""),
        ("a=" + "x" * 8200, ""),
    ],
)
def test_baggage(given: str, taken: str) -> None:
    assert TraceContext("", "", "", given).baggage == taken


@given(st.text() | st.text("traceparent: 0f-=,;\ncorrelation_idbaggage"))
def test_reading_raises_nothing_and_what_is_read_is_read_again(text: str) -> None:
    found = TraceContext.read(text)
    if found is not None:
        assert found.text
        again = TraceContext.read(found.text)
        assert again is not None
        assert again.metadata == found.metadata


def test_more_than_a_context_may_have_is_none() -> None:
    assert TraceContext.read("correlation_id: x\n" + "y: z\n" * 5_000) is None


def test_blocks_add_to_each_other() -> None:
    with correlated("a", headers={"traceparent": PARENT, "tracestate": "x=1", "host": "h"}):
        with correlated("b", headers={"baggage": "k=v"}):
            assert correlation_id() == "b"
            assert trace_headers() == {"traceparent": PARENT, "tracestate": "x=1", "baggage": "k=v"}
        with correlated(headers={"traceparent": PARENT.replace("b7", "b8")}) as context:
            assert context is current_trace.get()
            assert correlation_id() == "a"
            assert "tracestate" not in trace_headers()
        with correlated():
            assert trace_headers()["tracestate"] == "x=1"
    assert current_trace.get() is None


@pytest.mark.parametrize("bad", ["", "a b", "é", "x" * 129, "a\n", 17])
def test_an_id_that_cannot_be_is_refused(bad: str) -> None:
    with pytest.raises(snakepit.UsageError, match="1 to 128 visible characters"), correlated(bad):
        pytest.fail("it was taken")
