"""Attacks of a worker through large buffers: its shared memory is never the host's end, nor a way to other files.

A worker whose shared memory is refused must send the bytes itself, piece by piece. One that breaks a rule is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import BufferSet, Sizes
from bridge_py.buffers.shared_memory import Mappings, Segments, fix_size, make_memory
from bridge_py.buffers.transfers import Transfers
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.frames import Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.loans import MOST_ASKED, PIECE_BYTES
from tests.helpers.forged_worker import ASKED, OURS, SEALS, SIZE, memory
from tests.helpers.hostile import open_forged


async def test_a_second_loan_that_is_larger_than_the_mapping_costs_the_worker_its_life() -> None:
    async with open_forged(workers=2) as pool, pool.session() as session, pool.session() as other:
        assert await other.execute("lend_honestly") == OURS
        assert await session.execute("lend_honestly") == OURS
        with pytest.raises(snakepit.WorkerCrashed, match=f"a loan of 500000000 bytes in shared memory of {SIZE} bytes"):
            await session.execute("lend_more_of_it", {"size": 500_000_000}, timeout=20)
        assert await other.execute("lend_honestly") == OURS


async def test_memory_that_shrinks_after_it_was_lent_is_not_mapped() -> None:
    async with open_forged() as pool:
        found = await pool.execute("lend_unsealed", timeout=20)
        await pool.execute("shrink_unsealed")
        # If it were mapped, reading it would be the end of the host by SIGBUS.
        assert bytes(found) == OURS
        assert await pool.execute("lend_honestly") == OURS
        assert pool.get_stats().restarts == 0


async def test_a_file_that_the_worker_can_only_name_is_not_read_for_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * SIZE)
    async with open_forged() as pool:
        assert bytes(await pool.execute("lend_file", {"path": str(secret)}, timeout=20)) == OURS


@pytest.mark.parametrize("shared_memory", [0, SIZE + 1_000])
async def test_a_worker_lends_no_more_shared_memory_than_the_pool_allows(shared_memory: int) -> None:
    async with open_forged(shared_memory=shared_memory) as pool:
        kept = [await pool.execute("lend_honestly")] if shared_memory else []
        with pytest.raises(snakepit.WorkerCrashed, match=rf"more than {shared_memory} bytes of shared memory"):
            await pool.execute("lend_honestly", timeout=20)
        assert kept == [OURS] * len(kept)


async def test_shared_memory_that_was_given_back_does_not_count() -> None:
    async with open_forged(shared_memory=SIZE) as pool:
        for _ in range(5):
            assert bytes(await pool.execute("lend_honestly")) == OURS


async def test_a_worker_cannot_shrink_its_ledger_under_its_host() -> None:
    async with open_forged() as pool:
        # The host looks into the ledger of the dead worker. If that had shrunk, it would die of SIGBUS.
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("shrink_ledger_and_end", timeout=20)
        await pool.await_ready(20)
        assert await pool.execute("lend_honestly") == OURS


@pytest.mark.parametrize("asked", ASKED)
async def test_a_worker_cannot_make_its_host_pile_up_the_pieces_of_an_argument(asked: str) -> None:
    array = np.ones(100_000_000, np.uint8)
    async with open_forged(shared_memory=0) as pool, pool.session(asked) as session:
        with pytest.raises(snakepit.WorkerCrashed, match="pieces of loan 1 at a time; the limit is 64"):
            await session.execute("ask_for_pieces", {"array": array}, timeout=20)


def test_who_reads_may_ask_for_more_pieces() -> None:
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    lending = Transfers(conversation, Sizes(shared=0), lambda frame: None)
    size = 200 * PIECE_BYTES
    conversation.open("tool", b"", area=lending.ref(BufferSet([bytes(size)], size)))
    for _ in range(3):
        for frame in conversation.receive(encode_batch([Frame(Kind.FETCH, loan=1, number=MOST_ASKED)])):
            lending.handle(frame)
        with pytest.raises(snakepit.ProtocolError, match="65 pieces"):
            conversation.receive(encode_batch([Frame(Kind.FETCH, loan=1, number=1)]))
        while conversation.data_to_send():
            pass
    conversation.receive(encode_batch([Frame(Kind.RETURNED, loan=1)]))


def test_areas_that_come_in_pieces_are_fetched_one_after_another() -> None:
    """However many there are, the host has memory for as many bytes as one value may have."""
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    came: list[Frame] = []
    borrowing = Transfers(conversation, Sizes(max_area=3 * PIECE_BYTES), came.append)
    sizes = [2 * PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 3 * PIECE_BYTES, PIECE_BYTES]
    calls = [conversation.open("tool", b"") for _ in sizes]
    conversation.data_to_send()
    for loan, (call_id, size) in enumerate(zip(calls, sizes, strict=True), 1):
        for frame in conversation.receive(encode_batch([Frame(Kind.RESULT, call_id, loan=loan, size=size)])):
            borrowing.receive(frame)

    def fetched() -> list[int]:
        return [frame.loan for frame in decode_batch(conversation.data_to_send()) if frame.kind == Kind.FETCH]

    def send(loan: int) -> None:
        for _ in range(sizes[loan - 1] // PIECE_BYTES):
            piece = Frame(Kind.BUFFER, loan=loan, body=bytes(PIECE_BYTES))
            for frame in conversation.receive(encode_batch([piece])):
                borrowing.handle(frame)

    assert fetched() == [1, 2]
    send(2)
    assert fetched() == [3]
    borrowing.discard(calls[3])
    send(1)
    assert fetched() == [5]
    send(3)
    send(5)
    assert [frame.call_id for frame in came] == [calls[1], calls[0], calls[2], calls[4]]
    assert [len(frame.attached) for frame in came] == [sizes[1], sizes[0], sizes[2], sizes[4]]
    assert borrowing._fetched_bytes == 0
    assert not conversation.loans.open_loans


@contextlib.contextmanager
def _fifo(folder: Path) -> Iterator[tuple[int, str]]:
    os.mkfifo(folder / "fifo")
    yield _path_only(folder / "fifo")


@contextlib.contextmanager
def _file(folder: Path) -> Iterator[tuple[int, str]]:
    (folder / "file").write_bytes(OURS)
    yield _path_only(folder / "file")


@contextlib.contextmanager
def _deleted_file(folder: Path) -> Iterator[tuple[int, str]]:
    (folder / "file").write_bytes(OURS)
    descriptor, path = _path_only(folder / "file")
    (folder / "file").unlink()
    yield descriptor, path


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[tuple[int, str]]:
    yield _path_only(folder)


@contextlib.contextmanager
def _device(_folder: Path) -> Iterator[tuple[int, str]]:
    yield os.open("/dev/zero", os.O_RDONLY), "/dev/zero"


@contextlib.contextmanager
def _socket(_folder: Path) -> Iterator[tuple[int, str]]:
    ours, theirs = socket.socketpair()
    with ours:
        yield theirs.detach(), "socket"


@contextlib.contextmanager
def _without_seals(_folder: Path) -> Iterator[tuple[int, str]]:
    yield memory(OURS, "m", 0), "m"


@contextlib.contextmanager
def _that_may_shrink(_folder: Path) -> Iterator[tuple[int, str]]:
    yield memory(OURS, "m", fcntl.F_SEAL_GROW), "m"


@contextlib.contextmanager
def _that_may_grow(_folder: Path) -> Iterator[tuple[int, str]]:
    yield memory(OURS, "m", fcntl.F_SEAL_SHRINK), "m"


@contextlib.contextmanager
def _too_small(_folder: Path) -> Iterator[tuple[int, str]]:
    yield memory(OURS[1:], "m"), "m"


@contextlib.contextmanager
def _of_another_name(_folder: Path) -> Iterator[tuple[int, str]]:
    yield memory(OURS, "m"), "n"


@contextlib.contextmanager
def _with_holes(_folder: Path) -> Iterator[tuple[int, str]]:
    # The reader of a hole pays for its memory, or gets a SIGBUS if there is none.
    descriptor = os.memfd_create("m", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    yield descriptor, "m"


def _path_only(path: Path) -> tuple[int, str]:
    return os.open(path, os.O_PATH), str(path)


Hostile = Callable[[Path], contextlib.AbstractContextManager[tuple[int, str]]]
HOSTILE: list[Hostile] = [
    *(_fifo, _file, _deleted_file, _folder, _device, _socket),
    *(_without_seals, _that_may_shrink, _that_may_grow, _too_small, _of_another_name, _with_holes),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.__name__.strip("_"))
def test_only_sealed_memory_of_that_name_and_size_is_mapped(hostile: Hostile, tmp_path: Path) -> None:
    with hostile(tmp_path) as (descriptor, name):
        mappings = Mappings()
        right = memory(OURS, "right")
        _open(mappings, right, "right")
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match=r"is '|is not sealed|has holes"):
            _open(mappings, descriptor, name)
        assert os.listdir("/proc/self/fd") == before
        os.close(descriptor)
        os.close(right)


def _open(mappings: Mappings, descriptor: int, name: str) -> memoryview:
    return mappings.open(os.getpid(), descriptor, name, SIZE, lambda: None)


def test_what_is_no_memory_is_not_even_opened(tmp_path: Path) -> None:
    # A lease tells of each opening, and makes it wait: fcntl(2), F_SETLEASE.
    path = tmp_path / "leased"
    path.write_bytes(OURS)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        holder = os.open(path, os.O_RDWR)
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(OSError, match="is '"):
            _open(Mappings(), holder, str(path))
        assert fcntl.fcntl(holder, fcntl.F_GETLEASE) == fcntl.F_WRLCK
        os.close(holder)
    finally:
        signal.signal(signal.SIGIO, before)


def test_no_other_process_can_change_the_size_or_the_seals_of_our_memory() -> None:
    segments = Segments()
    segment = segments.get(SIZE)
    list(segment.write([OURS]))
    ledger = make_memory("ledger")
    os.posix_fallocate(ledger, 0, 4096)
    fix_size(ledger)
    attacks: list[Callable[[int], Any]] = [
        lambda opened: os.ftruncate(opened, 0),
        lambda opened: os.ftruncate(opened, 1 << 30),
        lambda opened: os.pwrite(opened, b"x", 1 << 20),
        lambda opened: fcntl.fcntl(opened, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ]
    for descriptor in (segment.descriptor, ledger):
        theirs = os.open(f"/proc/{os.getpid()}/fd/{descriptor}", os.O_RDWR)
        for attack in attacks:
            with pytest.raises(PermissionError):
                attack(theirs)
        os.close(theirs)
    os.close(ledger)
    list(segment.write([b"n" * SIZE]))  # it is used again
    assert os.pread(segment.descriptor, SIZE, 0) == b"n" * SIZE
    segment.release()
    segments.close()


async def test_honest_workers_share_memory_as_before() -> None:
    async with snakepit.open_pool("tests.helpers.value_tools:ValueTools", workers=1) as pool:
        for size in (100_000, 50_000, 100_000, 2_000_000):
            array = np.arange(size)
            found = await pool.execute("echo", {"value": array})
            assert np.array_equal(found, array)
            assert "memfd:snakepit-" in Path("/proc/self/maps").read_text()
