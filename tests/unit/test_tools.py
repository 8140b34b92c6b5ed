"""How tools are read from signatures, hints and docstrings."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

from bridge_py import BaseAdapter, InvalidArguments, SessionContext, UsageError, tool
from bridge_py.tools.adapter import Tool
from bridge_py.wire import codec

CONTEXT = SessionContext(1, None, None)


@dataclass
class Point:
    """A place."""

    x: float
    y: float


class Sample(BaseAdapter):
    """Tools with all kinds of parameters."""

    @tool
    def google(self, path: str, top: int = 3, *, when: dt.date | None = None) -> None:
        """Read a file.

        In full.

        Args:
            path: Which file,
                by its path.
            top (int): How many.
        """

    @tool(name="other", description="Told here.")
    def sphinx(self, path, size: Annotated[int, msgspec.Meta(ge=1)] = 1):  # type: ignore[no-untyped-def]
        """Not this.

        :param path: Which file.
        :param int size: How large.
        """

    @tool
    def shapes(self, points: list[Point], context: SessionContext, factor: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        """Take points."""

    @tool
    def anything(self, first: int = 0, **rest: Any) -> None:
        """Take what comes."""

    @tool
    def exotic(self, kind: range | complex, own: CODEC = None) -> None:  # type: ignore[valid-type]
        """Take what msgspec does not know."""

    def no_tool(self) -> None:
        """Not marked."""


CODEC = type(codec)
TOOLS = Sample().tools()


def _arguments(name: str, **values: Any) -> dict[str, Any]:
    return TOOLS[name].arguments(codec.encode(values).body, b"", CONTEXT)


def test_specs_come_from_signature_hints_and_docstring() -> None:
    assert sorted(TOOLS) == ["anything", "exotic", "google", "other", "shapes"]
    google = TOOLS["google"].spec
    assert google.description == "Read a file."
    described = [(p.name, p.type, p.description, p.required, p.default) for p in google.parameters]
    assert described == [
        ("path", "str", "Which file, by its path.", True, ""),
        ("top", "int", "How many.", False, "3"),
        ("when", "datetime.date | None", "", False, "None"),
    ]
    other = TOOLS["other"].spec
    assert (other.description, [p.description for p in other.parameters]) == (
        "Told here.",
        ["Which file.", "How large."],
    )
    assert [p.name for p in TOOLS["shapes"].spec.parameters] == ["points", "factor"]


def test_arguments_are_converted_and_defaults_left_to_python() -> None:
    assert _arguments("google", path="p", when="2026-11-23") == {"path": "p", "when": dt.date(2026, 11, 23)}
    shapes = _arguments("shapes", points=[{"x": 1, "y": 2}], factor=None)
    assert shapes == {"points": [Point(1.0, 2.0)], "factor": None, "context": CONTEXT}
    assert _arguments("anything", first=1, second={"a": [2]}) == {"first": 1, "second": {"a": [2]}}
    assert _arguments("other", path=[1]) == {"path": [1]}


@pytest.mark.parametrize(
    ("name", "values", "parameter", "message"),
    [
        ("google", {"path": "p", "top": "many"}, "top", "google: the argument 'top' does not fit: Expected `int`"),
        ("google", {"path": "p", "when": "soon"}, "when", "Invalid RFC3339 encoded date"),
        ("other", {"path": 1, "size": 0}, "size", "Expected `int` >= 1"),
        (
            "shapes",
            {"points": [{"x": 1, "y": 2}, {"x": 1}]},
            "points",
            r"missing required field `y` - at `points\[1\]`",
        ),
    ],
)
def test_what_does_not_fit_is_named(name: str, values: dict[str, Any], parameter: str, message: str) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        _arguments(name, **values)
    assert caught.value.parameter == parameter


def test_arguments_that_are_no_map() -> None:
    with pytest.raises(InvalidArguments):
        TOOLS["google"].arguments(codec.encode([1]).body, b"", CONTEXT)
    with pytest.raises(InvalidArguments):
        TOOLS["google"].arguments(b"\xc1", b"", CONTEXT)


def test_tools_that_cannot_be() -> None:
    def positional(a: int, /) -> None: ...

    def unresolved(a: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UsageError, match="by position only"):
        Tool(positional, "t")
    with pytest.raises(UsageError, match="its type hints cannot be resolved: name 'NoSuchType'"):
        Tool(unresolved, "t")

    class Twice(BaseAdapter):
        @tool(name="same")
        def one(self) -> None: ...

        @tool(name="same")
        def two(self) -> None: ...

    with pytest.raises(UsageError, match="two tools of the name 'same'"):
        Twice().tools()


def test_how_a_tool_is_stopped_is_in_its_spec() -> None:
    class Marked(BaseAdapter):
        @tool(cancel="kill", idempotent=True)
        async def one(self) -> None: ...

        @tool
        def two(self) -> None: ...

    tools = Marked().tools()
    assert (tools["one"].spec.cancel, tools["one"].spec.idempotent) == ("kill", True)
    assert (tools["two"].spec.cancel, tools["two"].spec.idempotent) == ("interrupt", False)


def test_a_wrong_way_to_stop_is_named_with_the_choices() -> None:
    async def coroutine() -> None: ...

    async def generator() -> AsyncIterator[int]:
        yield 1

    def plain() -> None: ...

    with pytest.raises(UsageError, match="tool 't': cancel='politely' is invalid: give one of interrupt, coop.*, kill"):
        Tool(plain, "t", cancel="politely")  # type: ignore[arg-type]
    for function in (coroutine, generator):
        with pytest.raises(UsageError, match="'t': cancel='cooperative' .* at its awaits; give one of interrupt, kill"):
            Tool(function, "t", cancel="cooperative")
