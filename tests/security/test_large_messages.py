"""Large messages of a worker: others have their turns on the host's loop while they are read, whatever is in them."""

from __future__ import annotations

import contextvars
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError
from bridge_py.wire.large import between_pieces
from snakepit_trio._requests import worker_requests
from tests.helpers.hostile import LONGEST, counted_turns, open_hostile
from tests.helpers.large_bodies import BODIES, body
from tests.security.test_hostile_values import LONG_WAY, PAIRS_OF_ONE_HASH, _map

#: How long the loop may wait, in seconds, for threads that read. On a busy machine, other programs may have the
#: processor while such a thread holds the interpreter.
WAITS = 0.4
#: How long it may take to free what was read, which only happens in one go.
FREES = 0.5


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """Looking through millions of new objects takes time too, however they were made."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def count(items: list[Any]) -> int:
    """A host tool."""
    return len(items)


@pytest.mark.parametrize("kind", BODIES)
async def test_a_large_result_slows_nobody(kind: str) -> None:
    found: list[Any] = []
    async with open_hostile(f"large_{kind}") as pool, counted_turns() as turns:
        with trio.fail_after(60):
            try:
                found.append(await pool.execute("attack", timeout=50))
            except snakepit.DecodeError as error:
                found.append(error)
    turns.tell(kind)
    assert turns.cpu < LONGEST
    assert turns.own < LONGEST + WAITS
    assert turns.count > 5


async def test_large_requests_slow_nobody() -> None:
    async with open_hostile("large_asks") as pool, pool.session() as session, counted_turns() as turns:
        pool.expose(count)
        assert await session.execute("attack", timeout=50) == 0
    turns.tell("asks")
    assert turns.cpu < LONGEST + FREES
    assert turns.own < LONGEST + FREES + WAITS


async def test_more_large_requests_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_requests, "_MOST_TO_READ", 2_000_000)
    async with open_hostile("large_asks_at_once") as pool, pool.session() as session:
        pool.expose(count)
        refused = await session.execute("attack", timeout=50)
    assert 0 < refused < 20


@pytest.mark.parametrize("keys", [PAIRS_OF_ONE_HASH, LONG_WAY], ids=["arrays", "ints"])
def test_large_maps_whose_keys_take_long_are_refused(keys: list[Any]) -> None:
    for data in (
        b"\x92" + _map(keys) + b"\xdd\0\x04\0\0" + bytes(0x40000),
        b"\x92\xdd\0\x04\0\0" + bytes(0x40000) + _map(keys),
        b"\xdd\0\0\0\x40" + _map(keys[:100]) * 63 + _map(keys),
    ):
        began = time.thread_time()
        with pytest.raises(DecodeError, match="more than 64 keys|chosen to take long"):
            codec.decode(data)
        assert time.thread_time() - began < 2


def test_large_messages_that_are_nested_in_each_other_are_read_in_a_bounded_time() -> None:
    leaf = b"\xdd\0\0\xf0\0" + b"\x01" * 0xF000
    chains = b"".join(b"\x92" * 190 + leaf + b"\xc0" * 190 for _ in range(20))
    began = time.thread_time()
    assert len(codec.decode(b"\xdd\0\0\0\x14" + chains)) == 20
    assert time.thread_time() - began < 3
    with pytest.raises(DecodeError, match="more than 200 levels"):
        codec.decode(b"\x91" * 300 + b"\xdd\0\x04\0\0" + bytes(0x40000))


@pytest.mark.parametrize("kind", BODIES)
def test_no_piece_is_large(kind: str) -> None:
    data = body(kind, 1)
    pieces: list[None] = []
    context = contextvars.copy_context()
    context.run(between_pieces.set, lambda: pieces.append(None))
    context.run(codec.decode, data)
    size = 1024 * 1024 if kind == "text" else 64 * 1024
    assert len(pieces) >= len(data) // size


def test_bytes_that_end_too_early_are_refused() -> None:
    for kind in BODIES:
        with pytest.raises(DecodeError):
            codec.decode(body(kind, 1)[:-1])
