"""A script whose tools run event loops, make tasks and start processes. It imports the host too, as scripts do."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import FrameType

import trio
import uvloop

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from bridge_py.execution import interrupts
from bridge_py.execution.running_loops import RunningLoop


def square(number: int) -> int:
    """For children of multiprocessing."""
    return number * number


def _log(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{text} ")


def _compute() -> None:
    # Not inside the caller's `try`: Python 3.13 forgets the end of such a loop in the table of its exceptions.
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


async def _wait(path: str, sleep: Callable[[float], Awaitable[object]]) -> None:
    try:
        _log(path, "begun")
        await sleep(60)
    finally:
        _log(path, "finally")


async def _wait_with_child(path: str) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        _log(path, str(process.pid))
        await process.wait()
    finally:
        process.kill()
        await process.wait()
        _log(path, "finally")


async def _use_pool(path: str) -> None:
    async with snakepit.open_pool(f"{__file__}:LoopTools", workers=1) as pool:
        if path:
            await pool.execute("run_waiting", {"path": path})
        else:
            await pool.execute("say_loop")


class LoopTools(BaseAdapter):
    """Of each kind one."""

    def __init__(self) -> None:
        self.kept: list[asyncio.Task[None]] = []

    @tool
    def say_loop(self) -> str:
        """What loop asyncio makes, and whether it runs a function in a thread."""

        async def say() -> str:
            await asyncio.sleep(0)
            return f"{type(asyncio.get_running_loop()).__module__} {await asyncio.to_thread(lambda: 'thread')}"

        return asyncio.run(say())

    @tool
    def run_waiting(self, path: str) -> None:
        """Wait in `asyncio.run`."""
        asyncio.run(_wait(path, asyncio.sleep))

    @tool
    def run_with_child(self, path: str) -> None:
        """Wait for a process in `asyncio.run`."""
        asyncio.run(_wait_with_child(path))

    @tool
    def run_in_uvloop(self, path: str) -> None:
        """Wait in `uvloop.run`."""
        uvloop.run(_wait(path, asyncio.sleep))

    @tool
    def run_until_complete(self, path: str) -> None:
        """Wait in a loop of one's own."""
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(_wait(path, asyncio.sleep))
        finally:
            loop.close()

    @tool
    def run_uvloops_loop(self, path: str) -> None:
        """Wait in a loop of one's own that is written in C."""
        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(_wait(path, asyncio.sleep))
        finally:
            loop.close()

    @tool
    def run_forever(self, path: str) -> None:
        """Wait in a loop for ever."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(_wait(path, asyncio.sleep))
        try:
            loop.run_forever()
        finally:
            _log(path, f"{task.cancelled()}")
            loop.close()

    @tool
    def run_blocked(self, path: str) -> None:
        """Compute in `asyncio.run`, and clean up with an await."""

        async def block() -> None:
            try:
                _log(path, "begun")
                _compute()
            finally:
                await asyncio.sleep(0.05)
                _log(path, "finally")

        asyncio.run(block())

    @tool
    def run_blocked_and_nudged(self, path: str) -> None:
        """As `run_blocked`, and the cancellation is read while the thread rests for the host's own signal."""
        names = vars(interrupts)
        rest = names["_TURN"]

        async def block() -> None:
            try:
                names["_TURN"] = 1.0
                _log(path, "begun")
                signal.raise_signal(signal.SIGURG)
                names["_TURN"] = rest
                _compute()
            finally:
                await asyncio.sleep(0.05)
                _log(path, "finally")

        asyncio.run(block())

    @tool
    def run_blocked_by_two_signals(self, path: str) -> None:
        """As `run_blocked`, and a second signal comes while the first one is handled."""
        names = vars(interrupts)
        find = names["loop_of"]

        def find_later(frame: FrameType | None, caller: str) -> RunningLoop | None:
            names["loop_of"] = find
            signal.raise_signal(signal.SIGURG)
            found: RunningLoop | None = find(frame, caller)
            return found

        names["loop_of"] = find_later
        self.run_blocked(path)

    @tool
    def run_two(self, path: str) -> None:
        """Wait outside of any loop, after one has ended."""
        asyncio.run(asyncio.sleep(0))
        try:
            _log(path, "begun")
            _compute()
        finally:
            _log(path, "finally")

    @tool
    def run_in_trio(self, path: str) -> None:
        """Wait in `trio.run`."""
        trio.run(_wait, path, trio.sleep)

    @tool
    def run_pool(self, path: str) -> None:
        """Have a worker of a pool of one's own wait; without a path, only use it."""
        trio.run(_use_pool, path)

    @tool
    def ignore_signal(self) -> None:
        """Take away the handler of the signal that interrupts tools."""
        signal.signal(signal.SIGURG, signal.SIG_IGN)

    @tool
    def block_signal(self) -> None:
        """Block that signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})

    @tool
    def close_loop(self) -> int:
        """Use the loop that a tool finds, and close it."""
        loop = asyncio.get_event_loop_policy().get_event_loop()
        found = loop.run_until_complete(asyncio.sleep(0, 5))
        loop.close()
        return found

    @tool
    async def leave_tasks(self, path: str) -> str:
        """Leave a task, which makes another one when it is cancelled, and a callback, which makes a third one."""

        async def last() -> None:
            try:
                await _wait(path, asyncio.sleep)
            finally:
                self.kept.append(asyncio.create_task(_wait(path, asyncio.sleep)))
                await asyncio.sleep(0.05)
                _log(path, "cleaned")

        self.kept.append(asyncio.create_task(last()))
        asyncio.get_running_loop().call_later(0.2, lambda: asyncio.create_task(_wait(path, asyncio.sleep)))
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        return "left"

    @tool
    async def stream_tasks(self, path: str) -> AsyncIterator[int]:
        """Leave a task, from a stream."""
        self.kept.append(asyncio.create_task(_wait(path, asyncio.sleep)))
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        yield 1

    @tool
    async def ignore_cancelling(self, path: str) -> None:
        """Leave a task that ignores that it is cancelled."""

        async def ignore() -> None:
            _log(path, "begun")
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    continue

        self.kept.append(asyncio.create_task(ignore()))
        while not Path(path).exists():
            await asyncio.sleep(0.01)

    @tool
    async def raise_in_task(self, kind: str) -> str:
        """Have a task raise what ends a loop."""

        async def fail() -> None:
            raise {"SystemExit": SystemExit(5), "KeyboardInterrupt": KeyboardInterrupt()}[kind]

        task = asyncio.create_task(fail())
        await asyncio.sleep(60)
        return str(task)

    @tool
    async def stop_its_loop(self) -> str:
        """Stop the loop that one runs on."""
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return "goes on"

    @tool
    async def sleep(self, seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return "slept"

    @tool
    def square(self, how: str) -> list[int]:
        """Have children compute."""
        if how == "loky":
            from joblib import Parallel, delayed

            found: list[int] = Parallel(n_jobs=2)(delayed(square)(number) for number in range(3))
            return found
        with multiprocessing.get_context(how).Pool(1) as pool:
            return pool.map(square, range(3))

    @tool
    def pid(self) -> int:
        """Of this process."""
        return os.getpid()


if __name__ == "__main__":
    sys.exit("the script itself was run")
if "__mp_main__" in sys.modules:
    # What children of multiprocessing see of a script that is not guarded.
    print("a child has imported the script")
