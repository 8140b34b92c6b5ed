"""Tools that stand at breakpoints."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator

from bridge_py import BaseAdapter, SessionContext, tool


def hook(*args: object) -> str:
    """A debugger that PYTHONBREAKPOINT may choose."""
    return f"hook{args}"


def stop_and_add(a: int, b: int) -> int:
    """A function for `pool.run`."""
    breakpoint()
    return a + b


def helper(number: int) -> int:
    """A place for a breakpoint that is set at the prompt."""
    return number


def stop_and_note(done: list[int]) -> None:
    """The code of a thread."""
    breakpoint()
    done.append(2)


async def stop_and_sleep() -> int:
    """The code of a task."""
    breakpoint()
    await asyncio.sleep(0.01)
    return 2


class Tools(BaseAdapter):
    """Most tools stop once, and return a number that the debugger may change."""

    def setup(self) -> None:
        """Stop, if a test asks for it."""
        if "STOP_IN_SETUP" in os.environ:
            breakpoint()

    @tool
    def sum_up(self) -> int:
        """Call a function three times."""
        breakpoint()
        return sum(helper(number) for number in range(3))

    @tool
    def stop_twice(self) -> int:
        """A function that it calls stops too."""
        breakpoint()
        return stop_and_add(1, 1)

    @tool
    async def stop_and_wait(self, number: int) -> int:
        """Stop, and let another coroutine go on."""
        breakpoint()
        await asyncio.sleep(0.5)
        return number

    @tool
    def stop_in_thread(self) -> int:
        """A thread of the tool's own stops."""
        done: list[int] = []
        thread = threading.Thread(target=stop_and_note, args=(done,))
        thread.start()
        thread.join()
        return done[0]

    @tool
    async def stop_in_task(self) -> int:
        """A task of the tool's own stops."""
        return await asyncio.create_task(stop_and_sleep())

    @tool
    def stop(self, number: int = 1) -> object:
        """A plain tool."""
        found: object = breakpoint()  # type: ignore[func-returns-value]  # some hooks do
        number += 1
        return number if found is None else found

    @tool
    def stop_with(self, first: str) -> object:
        """Stop with an argument for a debugger of one's own."""
        return breakpoint(first)  # type: ignore[func-returns-value]

    @tool(timeout=1)
    def stop_shortly(self, context: SessionContext) -> float | None:
        """Return the seconds that are left after the breakpoint."""
        breakpoint()
        return context.time_left()

    @tool
    async def stop_async(self, number: int = 1) -> int:
        """A coroutine."""
        breakpoint()
        await asyncio.sleep(0)
        number += 1
        return number

    @tool
    def stop_often(self, to: int = 3) -> Iterator[int]:
        """A stream."""
        for number in range(to):
            if number == 1:
                breakpoint()
            yield number

    @tool
    async def stop_often_async(self, to: int = 3) -> AsyncIterator[int]:
        """A stream of a coroutine."""
        for number in range(to):
            if number == 1:
                breakpoint()
            yield number

    @tool(batch=2)
    def stop_batch(self, number: list[int]) -> list[int]:
        """A batch tool."""
        breakpoint()
        return [2 * each for each in number]

    @tool(cancel="cooperative")
    def stop_cooperative(self) -> int:
        """A tool that is not interrupted."""
        breakpoint()
        return 2

    @tool(cancel="kill")
    def stop_kill(self) -> int:
        """A tool that is stopped by killing its worker."""
        breakpoint()
        return 2

    @tool
    def slow(self) -> None:
        """Stop, then compute for long."""
        breakpoint()
        time.sleep(600)

    @tool
    def fail(self) -> None:
        """Raise."""
        secret = 42
        raise ValueError(f"no luck, {secret}")

    @tool
    def fork(self) -> int:
        """Stop in a child process; returns its exit code."""
        pid = os.fork()
        if not pid:
            try:
                breakpoint()
            except Exception:
                os._exit(7)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @tool
    def pid(self) -> int:
        """The process."""
        return os.getpid()
