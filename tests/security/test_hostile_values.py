"""Small values that would cost the other side endless time or memory: refused, or read in a bounded time."""

from __future__ import annotations

import pickle
import random
import re
import time
import uuid
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, get_origin

import msgspec
import pytest

import snakepit_trio as snakepit
from bridge_py.contract.statuses import failure_of
from bridge_py.tools.adapter import Tool
from bridge_py.wire import codec
from bridge_py.wire.any_values import PREFIX, decode_any
from bridge_py.wire.errors import DecodeError, EncodeError, InvalidArguments, InvalidValue
from bridge_py.wire.patterns import finds
from bridge_py.wire.types import get_type, load_json
from snakepit_trio._config.stdio_adapters import StdioMsgpack
from snakepit_trio.state.store import MemoryStore
from tests.helpers import functions as f
from tests.helpers.short_results import Tools as ShortResults

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


def _pairs_of_one_hash(count: int) -> list[list[int]]:
    """Pairs of ints whose tuples have one hash: the steps of the hash of a tuple, undone (xxHash)."""
    mask, first, second, fifth = (1 << 64) - 1, 11400714785074694791, 14029467366897019727, 2870177450012600261
    target, number = (hash((1, 2)) - (2 ^ fifth ^ 3527539)) & mask, 0
    found: list[list[int]] = []
    while len(found) < count:
        number += 1
        state = fifth + number * second & mask
        state = (state << 31 | state >> 33) * first & mask
        wanted = target * pow(first, -1, 1 << 64) & mask
        wanted = (wanted >> 31 | wanted << 33) & mask
        other = (wanted - state) * pow(second, -1, 1 << 64) & mask
        other -= other >> 63 << 64
        if -1 > other > -PRIME or 0 < other < PRIME:
            found.append([number, other])
    return found


def _ints_that_lead_past_each_other(bits: int = 14) -> list[int]:
    """Ints of different hashes for a table of that size: a long run of taken places, and ints that begin in it."""
    size = 1 << bits
    run = size * 2 // 3 * 11 // 20
    places = [0]
    while len(places) < size * 2 // 3 - 10:
        places.append((5 * places[-1] + 1) % size)
    begin, taken = {place: n for n, place in enumerate(places[:run])}, set(places[:run])
    choices, chosen = random.Random(1), dict.fromkeys(places[:run])
    while len(chosen) < len(places):
        key = left = places[choices.randrange(run)] + choices.randrange(1, 32) * size
        place = key % size
        while left and place in taken:
            left >>= 5
            place = (5 * place + left + 1) % size
        if not left and begin.get(place, run) < run // 3 and key not in chosen:
            taken.add(places[len(chosen)])
            chosen[key] = None
    return list(chosen)


def _map(keys: list[Any]) -> bytes:
    """A map of MessagePack's own, with keys that our encoder would put into an extension."""
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(msgspec.msgpack.encode(key) + b"\xc0" for key in keys)


@dataclass
class Bag:
    """An object whose field becomes a set."""

    items: set[tuple[int, int]]


@dataclass(frozen=True)
class Place:
    """An object whose hash is that of its fields."""

    x: int
    y: int


PAIRS_OF_ONE_HASH = _pairs_of_one_hash(20_000)
LONG_WAY = _ints_that_lead_past_each_other()
ARRAYS_OR_EXTENSIONS = "a map has more than 64 keys that are arrays or extensions"
CHOSEN = "keys were chosen to take long: their hashes lead past each other"


def test_the_attacks_are_what_they_say() -> None:
    assert len({hash(tuple(pair)) for pair in PAIRS_OF_ONE_HASH}) == 1
    assert len(set(map(hash, LONG_WAY))) == len(LONG_WAY)
    began = time.thread_time()
    dict.fromkeys(range(len(LONG_WAY)))
    usual = time.thread_time() - began
    began = time.thread_time()
    dict.fromkeys(dict.fromkeys(LONG_WAY))
    assert time.thread_time() - began > 10 * usual


@pytest.mark.parametrize(
    ("keys", "message"),
    [(PAIRS_OF_ONE_HASH, ARRAYS_OR_EXTENSIONS), (COLLIDING, ARRAYS_OR_EXTENSIONS), (LONG_WAY, CHOSEN)],
    ids=["arrays", "extensions", "ints"],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda data: data,
        lambda data: data[:-1],  # its last value is missing: the keys would be used all the same
        lambda data: b"\x91" * 20 + data,
        lambda data: b"\x81\xa1a" + data,
        lambda data: b"\x92\xc4\x01\0" + data,  # behind bytes
        lambda data: b"\x81\x91\xc0" + data,
        lambda data: msgspec.msgpack.encode(_ext(24, [msgspec.Raw(data)])),
        lambda data: msgspec.msgpack.encode([_ext(23, ["A", None, msgspec.Raw(data)])]),
    ],
    ids=["alone", "cut", "deep", "value", "behind", "behind a key", "tuple", "object"],
)
def test_a_map_whose_keys_take_long_is_refused(keys: list[Any], message: str, place: Any) -> None:
    body = place(_map(keys))
    began = time.thread_time()
    with pytest.raises(DecodeError, match=message):
        codec.decode(body)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    "value",
    [
        _ext(4, [[key, None] for key in LONG_WAY]),
        _standard("OrderedDict", [[key, None] for key in LONG_WAY]),
        _standard("Counter", [[key, 1] for key in LONG_WAY]),
        _standard("defaultdict", [None, [[key, None] for key in LONG_WAY]]),
    ],
)
def test_pairs_whose_keys_take_long_are_refused(value: Any) -> None:
    with pytest.raises(DecodeError, match=CHOSEN):
        codec.decode(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("keys", [PAIRS_OF_ONE_HASH, LONG_WAY], ids=["arrays", "ints"])
def test_a_frame_of_a_foreign_worker_whose_keys_take_long_is_refused(keys: list[Any]) -> None:
    adapter = StdioMsgpack("worker.py")
    began = time.thread_time()
    with pytest.raises(DecodeError, match=f"{ARRAYS_OR_EXTENSIONS}|{CHOSEN}"):
        adapter.decode(b"\x81\xa6result" + _map(keys))
    assert time.thread_time() - began < 1
    assert adapter.decode(b"\x81\xa6result" + _map(list(range(20_000))))["result"] == dict.fromkeys(range(20_000))


@pytest.mark.parametrize(
    "hint", [set[tuple[int, int]], dict[str, list[frozenset[Any]]], AbstractSet[Any] | None, Bag, set[Place]]
)
def test_a_list_of_which_a_hint_makes_a_set_that_takes_long_is_refused(hint: Any) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    value: Any = {"a": [PAIRS_OF_ONE_HASH]} if get_origin(hint) is dict else PAIRS_OF_ONE_HASH
    if hint == set[Place]:
        value = [{"y": y, "x": x} for x, y in PAIRS_OF_ONE_HASH]
    encoded = codec.encode({"value": Bag(value) if hint is Bag else value})
    began = time.thread_time()
    with pytest.raises(InvalidArguments, match="more than 64 keys have the same hash"):
        Tool(take, "take").arguments(encoded.body, b"".join(encoded.buffers), None)
    assert time.thread_time() - began < 1


class Pair(NamedTuple):
    """A key that arrives as an object."""

    x: int
    y: int


@pytest.mark.parametrize("hint", [dict[Pair, None], Any, set[Pair], frozenset[Any]])
@pytest.mark.parametrize("code", [2, 3, 4])
def test_objects_as_keys_that_take_long_are_refused(hint: Any, code: int) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    objects = [_ext(23, ["Pair", None, pair]) for pair in PAIRS_OF_ONE_HASH]
    body = msgspec.msgpack.encode({"value": _ext(code, [[key, None] for key in objects] if code == 4 else objects)})
    began = time.thread_time()
    with pytest.raises(InvalidArguments):
        Tool(take, "take").arguments(body, b"", None)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_keys_that_take_long_is_refused(protocol: int) -> None:
    about = b'{"shape": [1], "dtype": "float64", "binary_format": "pickle", "type": "tensor"}'
    for value in ([dict.fromkeys(LONG_WAY)], [set(LONG_WAY)], [frozenset([1])]):
        data = pickle.dumps(value, protocol)
        began = time.thread_time()
        with pytest.raises(DecodeError, match="is not read: only numpy arrays are"):
            decode_any(PREFIX + "snakepit.tensor.binary", about, data, allow_pickle=True)
        assert time.thread_time() - began < 1


def _lists_of_each_other(depth: int) -> bytes:
    # A list of 200 numbers, in a list that holds it 200 times, and so on: 200 ** depth numbers in few bytes.
    leaf = b"]\x94(" + b"K\x01" * 200 + b"e"
    for number in range(depth):
        leaf += b"]\x94(" + (b"h" + bytes([number])) * 200 + b"e"
    return b"\x80\x04" + leaf + b"."


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04]\x94(K\x01cos\nsystem\n(Vtouch " + b"made\ntRe.",
        b"\x80\x04]\x94(G" + b"cos\nsyst" + b"cos\nsystem\n(Vtouch made\ntRe.",
        b"]." + b"cos\nsystem\n(Vtouch made\ntR.",
        b"]\x94h\x00a.",
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"(((((.",
        b"h\x07.",
        _lists_of_each_other(8),
    ],
    ids=str,
)
def test_pickles_that_begin_as_plain_lists_do(data: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    about = b'{"shape": [1], "dtype": "float64", "binary_format": "pickle", "type": "tensor"}'
    began = time.thread_time()
    try:
        found = decode_any(PREFIX + "snakepit.tensor.binary", about, data, allow_pickle=True)
    except DecodeError:
        pass
    else:
        assert found == ("tensor", [])  # what follows the end of a pickle is not read
    assert time.thread_time() - began < 3
    assert not list(tmp_path.iterdir())


def test_values_that_are_nested_too_deep_are_refused() -> None:
    for body in (b"\x91" * 100_000 + b"\xc0", b"\x81\xa1a" * 100_000 + b"\xc0", b"\xdd\xff\xff\xff\xff" * 1000):
        with pytest.raises(DecodeError):
            codec.decode(body)
    for depth, content in ((500, None), (90, [*[_int(1 << 70)] * 1_500, msgspec.msgpack.Ext(99, b"")])):
        nested: Any = content
        for _ in range(depth):
            nested = _ext(24, [nested])
        body = msgspec.msgpack.encode([nested, nested])
        began = time.thread_time()
        with pytest.raises(DecodeError):
            codec.decode(body)
        assert time.thread_time() - began < 0.4


@pytest.mark.parametrize("body", [b"\x81\xa1z" + b"\x91" * 100_000, b"\x91" * 1_000_000])
def test_the_body_of_an_error_that_is_nested_too_deep_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="the body of an error frame is broken"):
        codec.decode_fault(body)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"message":' * 100_000, '{"message":' + "[" * 900 + "]" * 900 + "}"])
def test_an_error_of_the_contract_that_is_nested_too_deep_is_a_text(text: str) -> None:
    assert failure_of(text).code == "tool"


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
        {number << 40: number for number in range(100_000)},
        {number * 1_000_003 % 2**63: {number: b"x", None: 1.5, -number: "y"} for number in range(10_000)},
        {number / 7: str(number) for number in range(20_000)},
        {(number, "x"): frozenset([number]) for number in range(20_000)},
        {uuid.UUID(int=number): number for number in range(20_000)},
        {"a": [{f"{number}": number, number: b"x", True: [{}] * 70} for number in range(5_000)]},
    ]
    for value in values:
        assert codec.decode(codec.encode(value).body) == value


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+$", "a" * 9_999 + "b"),
        ("(a|a)*b", "a" * 10_000),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 10_000),
        ("a*a*a*a*a*a*a*b", "a" * 10_000),
        ("(.*a){20}", "b" * 10_000),
        ("(a?){30}a{30}b", "a" * 1_000),
        (r"\d+x", "1" * 10_000),
        ("(ab|ab){40}c", "ab" * 500),
        ("^" + "(ab|ab)" * 100 + "c", "ab" * 5_000),
        ("^(a{1,2}){1,40}b", "a" * 10_000),
        ("^(?:a?){40}a{40}b", "a" * 40),
    ],
)
def test_a_pattern_that_backtracks_is_searched_for_in_a_bounded_time(pattern: str, text: str) -> None:
    began = time.thread_time()
    assert not finds(pattern, text)
    assert time.thread_time() - began < 1


def test_a_text_that_takes_too_long_is_refused() -> None:
    with pytest.raises(InvalidValue, match="a text of 10001 characters takes too long to be compared"):
        finds("(a+)+$", "a" * 10_001)
    with pytest.raises(InvalidValue, match="a text of 9000 characters takes too long"):
        finds(".{0,400}x.*", "a" * 9_000)
    assert finds("^a.*$", "a" * 10_000_000), "a search that begins at one place takes no longer than the text"
    assert not finds("abc", "a" * 10_000_000)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"^[a-z]+(-[a-z]+)*$",
            r"(a+)+$",
            r"(a|a)*b",
            r"^\d{4}-\d\d$",
            r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
            r"\bf+o*\b|bar$",
        ),
        *(
            r"(?i)aB+c?",
            r"^a{2,4}$",
            r"(?m)^b.*c$",
            r"a*?b",
            r"",
            r"x|",
            r"(?s)a.b",
            r"\w+\s\d*",
            r"[^\W\d_]+",
            r"(a*)*",
        ),
        *(r"(ab|a)(bc|c)?$", r"(?i:a)b*c*", r"(|a)+b", r"\Aa*b\Z", r"a+\B", r"(?:(?i:x)|y){2}", "(a{0,3}){2,}b$"),
    ],
)
def test_a_search_finds_what_re_finds(pattern: str) -> None:
    choices = random.Random(pattern)
    for _ in range(300):
        text = "".join(choices.choice("aAbBc-@. \n1foxyr\u00e9") for _ in range(choices.randrange(12)))
        assert finds(pattern, text) == (re.search(pattern, text) is not None), text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?=(a+)+)b", "its time has no bound"),
        (r"(a+)\1+$", "its time has no bound"),
        ("((a{50}b?){50}){50}", "its time has no bound"),
        ("a" * 1_001, "a pattern of 1001 characters: give 1000 at most"),
    ],
)
async def test_others_may_give_no_pattern_without_a_bound(pattern: str, message: str) -> None:
    view = MemoryStore().of("s")
    with pytest.raises(InvalidValue, match=message):
        await view.register_variable("v", "string", "a", constraints={"pattern": pattern}, source="worker")


def test_the_hosts_own_code_may_give_any_pattern() -> None:
    assert finds(r"^(?=.*\d)(?=.*[a-z]).{8,}$", "passw0rd")


async def test_results_of_fewer_items_than_were_sent_are_refused() -> None:
    async with (
        snakepit.open_pool(ShortResults, workers=1) as pool,
        pool.map(f.add, range(4), chunksize=2, pairs=True) as results,
    ):
        found = [pair async for pair in results]
    assert [item for item, _ in found] == [0, 1, 2, 3]
    for _, result in found:
        with pytest.raises(snakepit.DecodeError, match="1 results for 2 items"):
            result.unwrap()
