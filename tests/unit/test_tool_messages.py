"""Messages of plain calls that are written and read by hand: betterproto agrees with each, or gets it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_py.contract import tool_messages, values
from bridge_py.wire.messages.snakepit import bridge as messages

TEXTS = st.text(max_size=200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=5,
)


@given(TEXTS, TEXTS, st.dictionaries(TEXTS, JSON, max_size=3), st.dictionaries(TEXTS, TEXTS, max_size=2))
def test_a_request_is_the_one_that_betterproto_writes(
    session_id: str, name: str, args: dict[str, Any], metadata: dict[str, str]
) -> None:
    written = tool_messages.write_request(session_id, name, args, metadata)
    if written is None:
        return
    packed, binaries = values.pack_parameters(args, name)
    assert not binaries
    expected = messages.ExecuteToolRequest(session_id=session_id, tool_name=name, parameters=packed, metadata=metadata)
    assert messages.ExecuteToolRequest.parse(written) == expected


@pytest.mark.parametrize("size", [0, 1, 107, 127, 128, 16_383, 16_384, 3_000_000])
def test_sizes_of_every_length_are_written(size: int) -> None:
    written = tool_messages.write_request("s", "t", {"text": "x" * size}, {})
    assert written is not None
    found = messages.ExecuteToolRequest.parse(written)
    assert values.unpack_parameters(found.parameters, {}) == {"text": "x" * size}


@pytest.mark.parametrize("value", [float("nan"), object(), b"raw", "\ud800"], ids=["nan", "object", "bytes", "half"])
def test_what_has_no_plain_form_is_left_to_betterproto(value: object) -> None:
    assert tool_messages.write_request("s", "t", {"value": value}, {}) is None


@given(JSON, st.integers(0, 1 << 62))
def test_a_result_is_the_one_that_betterproto_reads(value: Any, milliseconds: int) -> None:
    packed, _ = values.to_any(value, "result")
    answer = messages.ExecuteToolResponse(success=True, result=packed, execution_time_ms=milliseconds)
    assert tool_messages.read_result(bytes(answer)) == (packed.type_url, packed.value)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda data: b"\x08\x01\x12" + data), st.integers(0, 60))
def test_bytes_that_are_read_mean_the_same_to_betterproto(data: bytes, cut: int) -> None:
    plain = bytes(messages.ExecuteToolResponse(success=True, result=values.to_any({"k": 1}, "x")[0]))
    for each in (data, plain[:cut], plain + data):
        found = tool_messages.read_result(each)
        if found is not None:
            result = messages.ExecuteToolResponse.parse(each).result
            assert result is not None
            assert found == (result.type_url, result.value)


@pytest.mark.parametrize(
    "answer",
    [
        messages.ExecuteToolResponse(success=False, error_message="no"),
        messages.ExecuteToolResponse(success=True),
        messages.ExecuteToolResponse(success=True, result=values.to_any(1, "x")[0], binary_result=b"x"),
        messages.ExecuteToolResponse(success=True, result=values.to_any(1, "x")[0], error_message="x"),
    ],
    ids=["failure", "nothing", "raw", "both"],
)
def test_other_answers_are_left_to_betterproto(answer: messages.ExecuteToolResponse) -> None:
    assert tool_messages.read_result(bytes(answer)) is None


@given(TEXTS, st.binary(max_size=3))
def test_a_session_id_is_read_if_it_is_alone(session_id: str, more: bytes) -> None:
    data = bytes(messages.GetExposedElixirToolsRequest(session_id=session_id))
    assert tool_messages.read_session_id(data) in (session_id, None)
    assert not more or tool_messages.read_session_id(data + more) is None
