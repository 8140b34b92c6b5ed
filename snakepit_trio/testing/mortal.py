"""Coroutines of asyncio, on trio, that end when their worker is killed, whatever exceptions they catch."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final

import trio

from .guest_loop import GuestLoop

_AGONY: Final = 1.0  # seconds of trio's clock that the `finally` clauses of a killed worker's code may take


class Mortal:
    """A coroutine that is run step by step. When `is_dead` is set, it takes no further step, and is closed there."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self.is_dead = False

    async def run(self) -> None:
        """Run the coroutine to its end, or until `is_dead`."""
        await self._steps()

    @types.coroutine
    def _steps(self) -> Generator[Any, Any, None]:
        error: BaseException | None = None
        try:
            while not self.is_dead:
                step = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
                error = None
                try:
                    yield step
                except BaseException as raised:  # noqa: ASYNC103 - thrown into the coroutine next
                    error = raised
        except StopIteration:
            return
        # Its time is over: a killed process would not raise what it still raises, nor await what it still awaits.
        with contextlib.suppress(BaseException):
            self._coroutine.close()
        raise asyncio.CancelledError


async def run_mortal(loop: GuestLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in asyncio. If this is cancelled, so is the coroutine, and a second later it is dead."""
    mortal = Mortal(coroutine)
    ended = trio.Event()
    task = loop.create_task(mortal.run())
    task.add_done_callback(lambda _: ended.set())
    try:
        await ended.wait()
    finally:
        if not task.done():
            with trio.CancelScope(shield=True):
                task.cancel()
                with trio.move_on_after(_AGONY):
                    await ended.wait()
                mortal.is_dead = True
                task.cancel()
                await ended.wait()
        coroutine.close()  # it may have been cancelled before it began
    if not task.cancelled():
        task.result()
