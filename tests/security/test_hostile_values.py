"""Small values that would cost the other side endless time or memory: refused, or read in a bounded time."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError, EncodeError, InvalidValue
from bridge_py.wire.types import get_type, load_json

PRIME = (1 << 61) - 1  # all its multiples have the hash 0


def _ext(code: int, value: Any) -> Any:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(value))


def _int(value: int) -> Any:
    return msgspec.msgpack.Ext(1, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _standard(name: str, content: Any) -> Any:
    return _ext(21, [name, content])


ENDLESS = _standard("range", [0, 1 << 60, 1])
COLLIDING = [_int(PRIME * number) for number in range(9, 20_000)]
PAIRS = [[key, None] for key in COLLIDING]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_ext(2, ENDLESS), "a range in place of a list"),
        (_ext(3, ENDLESS), "a range in place of a list"),
        (_ext(4, ENDLESS), "a range in place of a list"),
        (_ext(24, ENDLESS), "a range in place of a list"),
        (_standard("deque", [ENDLESS, None]), "a range in place of a list"),
        (_standard("Counter", ENDLESS), "a range in place of a list"),
        (_standard("OrderedDict", ENDLESS), "a range in place of a list"),
        (_standard("defaultdict", [None, ENDLESS]), "a range in place of a list"),
        (_standard("Fraction", ["1e9999999999"]), "ValueError"),
        (_standard("Fraction", ["1e9999999999", 1]), "a Fraction that is not made of two ints"),
        (_standard("Fraction", [_int((1 << 4_000_000) - 1), _int(3**2_000_000)]), "ints of more than 65536 bits"),
        (_ext(2, COLLIDING), "more than 64 keys have the same hash"),
        (_ext(3, COLLIDING), "more than 64 keys have the same hash"),
        (_ext(4, PAIRS), "more than 64 keys have the same hash"),
        (_standard("OrderedDict", PAIRS), "more than 64 keys have the same hash"),
        (_standard("Counter", PAIRS), "more than 64 keys have the same hash"),
        (_standard("defaultdict", [None, PAIRS]), "more than 64 keys have the same hash"),
        (_ext(2, [[0, key] for key in COLLIDING]), "more than 64 keys have the same hash"),
    ],
)
def test_a_value_that_would_cost_endless_time_is_refused(value: Any, message: str) -> None:
    body = msgspec.msgpack.encode([value])
    began = time.thread_time()
    with pytest.raises(DecodeError, match=message):
        codec.decode(body)
    assert time.thread_time() - began < 2


def test_values_that_are_nested_too_deep_are_refused() -> None:
    for body in (b"\x91" * 100_000 + b"\xc0", b"\x81\xa1a" * 100_000 + b"\xc0", b"\xdd\xff\xff\xff\xff" * 1000):
        with pytest.raises(DecodeError):
            codec.decode(body)
    nested: Any = None
    for _ in range(2_000):
        nested = _ext(2, [nested])
        if len(nested.data) > 10_000:
            break
    with pytest.raises(DecodeError):
        codec.decode(msgspec.msgpack.encode([nested, nested]))


def test_the_error_about_a_giant_part_is_short() -> None:
    body = msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"\x1b" * 10_000_000))
    with pytest.raises(DecodeError) as caught:
        codec.decode(body)
    assert len(str(caught.value)) < 10_000
    assert str(caught.value).isprintable()


def test_numbers_of_more_than_10_000_digits_are_no_integers() -> None:
    largest = 10**10_000 - 1
    integer = get_type("integer")
    assert integer.deserialize(integer.serialize(largest)) == largest
    for number in (10**10_001, -(10**10_001)):
        with pytest.raises(InvalidValue, match="has more than 10000 digits"):
            integer.validate(number)
    with pytest.raises(InvalidValue, match="a number of 1000000 digits; it may have 10000"):
        load_json(b"9" * 1_000_000, "value")


def test_large_fractions_are_refused_where_they_are_sent() -> None:
    large = Fraction(1 << 70_000, 3)
    with pytest.raises(EncodeError, match=r"value\[0\]: a Fraction of ints of more than 65536 bits"):
        codec.encode([large])
    small = Fraction(1 << 60_000, 3)
    assert codec.decode(codec.encode(small).body) == small


def test_keys_that_people_use_still_arrive() -> None:
    values: list[Any] = [
        set(range(100_000)),
        {(a, b) for a in range(100) for b in range(100)},
        {2**number for number in range(2_000)},
        {(-1) ** number * number for number in range(1_000)},
        {float(number) / 7 for number in range(1_000)} | {complex(number, 1) for number in range(1_000)},
    ]
    for value in values:
        assert codec.decode(codec.encode(value).body) == value
