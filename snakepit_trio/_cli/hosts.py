"""Asks the hosts of other processes about their pools, at the sockets in the folders of their runs."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, TypeVar

import attrs
import msgspec
import trio

from bridge_py.wire.errors import SnakepitError
from snakepit_trio._processes import registry
from snakepit_trio._processes.registry import INSPECTION, RunInfo

_PIECE: Final = 1 << 18
_LONGEST: Final = 64 << 20  # bytes of an answer
_AGAIN: Final = 0.02  # seconds

T = TypeVar("T")


class NoAnswer(SnakepitError):
    """A host has not answered; the text says why."""


class NoPool(SnakepitError):
    """There is no pool to look at."""


# What hosts answer. All fields have defaults, because a host may have another version of this package.


class Stats(msgspec.Struct):
    """Counts of a pool since it was opened; `uptime` is in seconds."""

    workers: int = 0
    ready: int = 0
    busy: int = 0
    spares: int = 0
    queued: int = 0
    running: int = 0
    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    crashed: int = 0
    retried: int = 0
    restarts: int = 0
    recycled: int = 0
    uptime: float = 0.0


class WorkerLook(msgspec.Struct):
    """One worker. `memory` is its resident memory in bytes. `node` is its machine, None for the host's."""

    id: str = ""
    pid: int | None = None
    state: str = ""
    calls_served: int = 0
    started_at: float = 0.0
    memory: int | None = None
    latency: float | None = None
    missed_pings: int = 0
    is_spare: bool = False
    node: str | None = None

    @property
    def local_pid(self) -> int | None:
        """The process id, if it is one of the host's machine."""
        return self.pid if self.node is None else None


class CallLook(msgspec.Struct):
    """One call under way. Times are in seconds."""

    id: int = 0
    tool: str = ""
    state: str = ""
    session_id: str | None = None
    worker_id: str | None = None
    pid: int | None = None
    priority: int = 0
    is_stream: bool = False
    parent: int | None = None
    queued: float = 0.0
    on_worker: float = 0.0
    time_left: float | None = None


class LeftOut(msgspec.Struct):
    """How many workers and calls the answer leaves out."""

    workers: int = 0
    calls: int = 0


class PoolLook(msgspec.Struct):
    """A pool at one moment. `clock` is seconds of the host's clock, for differences."""

    pool: str = ""
    host: int = 0
    adapter: str = ""
    concurrency: int = 1
    clock: float = 0.0
    stats: Stats = msgspec.field(default_factory=Stats)
    workers: list[WorkerLook] = []
    calls: list[CallLook] = []
    left_out: LeftOut = msgspec.field(default_factory=LeftOut)
    error: str = ""


Frame = tuple[str, int, str]  # file, line, function


class TaskLook(msgspec.Struct):
    """A task of the host, which comes before its children. `nursery` is the number of its parent's nursery."""

    name: str = ""
    depth: int = 0
    nursery: int = 0
    is_cancelled: bool = False
    frames: list[Frame] = []


class ThreadLook(msgspec.Struct):
    """A thread of the host beside the one of its loop."""

    name: str = ""
    frames: list[Frame] = []


class HostLook(msgspec.Struct):
    """The tasks of a loop of a host, and the host's threads. `loop` is the number of the thread that runs the loop."""

    host: int = 0
    loop: int = 0
    tasks: list[TaskLook] = []
    threads: list[ThreadLook] = []
    error: str = ""


@attrs.frozen
class Seen:
    """A run and what its host has answered: `look`, or None and the `problem`. It took `seconds`."""

    run: RunInfo
    look: PoolLook | None
    problem: str = ""
    seconds: float = 0.0


def runs_of(pid: int | None) -> list[RunInfo]:
    """The living runs of a host, which may be named by one of its workers; of all hosts if `pid` is None.

    Raises `NoPool` if there is none.
    """
    living = [run for run in registry.runs() if run.is_alive]
    found = [run for run in living if pid is None or pid in (run.host_pid, *(worker.pid for worker in run.workers))]
    if found:
        return found
    if pid is None:
        raise NoPool("no pool of this user is open")
    there = ", ".join(str(each) for each in sorted({run.host_pid for run in living})) or "none"
    raise NoPool(
        f"process {pid} has no open pool, or it is another user's; hosts with pools: {there} (see `snakepit ps`)"
    )


async def look_at(run: RunInfo, timeout: float) -> Seen:
    """Ask the host about a pool. What goes wrong is in `Seen.problem`."""
    began = trio.current_time()
    look, problem = None, ""
    try:
        look = await ask(run, "pool", PoolLook, timeout)
        problem = look.error
    except NoAnswer as error:
        problem = str(error)
    return Seen(run, None if problem else look, problem, trio.current_time() - began)


async def look_at_all(runs: Sequence[RunInfo], timeout: float) -> list[Seen]:
    """Ask the hosts of several runs at once, in their order."""
    found: dict[str, Seen] = {}

    async def look(run: RunInfo) -> None:
        found[run.id] = await look_at(run, timeout)

    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(look, run)
    return [found[run.id] for run in runs]


async def ask(run: RunInfo, question: str, kind: type[T], timeout: float) -> T:
    """Ask the host of a run. Raises `NoAnswer`, at the latest after `timeout` seconds."""
    with trio.move_on_after(timeout):
        try:
            return msgspec.json.decode(await _exchange(run, question), type=kind)
        except FileNotFoundError:
            raise NoAnswer("the host has no socket for this: its log says why, or its snakepit-trio is older") from None
        except OSError as error:
            raise NoAnswer(f"the host cannot be asked: {error.strerror or error}") from None
        except msgspec.MsgspecError as error:
            raise NoAnswer(f"the host's answer cannot be read: {error}") from None
    raise NoAnswer(f"the host has not answered in {timeout:g} s: something blocks its loop, or it is stopped")


async def _exchange(run: RunInfo, question: str) -> bytes:
    with trio.socket.socket(socket.AF_UNIX) as stream:
        await _connect(stream, str(run.folder / INSPECTION))
        await stream.send(f"{question}\n".encode())
        answer = bytearray()
        while piece := await stream.recv(_PIECE):
            answer += piece
            if len(answer) > _LONGEST:
                raise NoAnswer(f"the host's answer has more than {_LONGEST >> 20} MiB")
    if not answer:
        raise NoAnswer("the host has hung up: the pool closes, or it has refused us")
    return bytes(answer)


async def _connect(stream: trio.socket.SocketType, path: str) -> None:
    while True:
        try:
            await stream.connect(path)
            break
        except BlockingIOError:  # many others ask
            await trio.sleep(_AGAIN)
    size = struct.calcsize("iII")
    _, uid, _ = struct.unpack("iII", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid != os.getuid():
        raise NoAnswer(f"a process of uid {uid} answers in place of the host")
