"""Changes that are asked for while one is written are written together: one sync of the disk for all of them."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import outcome
import trio

_MOST: Final = 64  # changes in one group


class _Asked:
    """A change that a task waits for. `outcome` is None until it has been made; `is_taken` while it is written."""

    def __init__(self, change: Any) -> None:
        self.change = change
        self.is_taken = False
        self.outcome: outcome.Maybe[Any] | None = None
        self.left_hands = trio.Event()  # of who wrote it: it is made, or waits again


class WriteGroups:
    """Writes changes in groups, in the order in which they were asked for.

    `write` gets the changes of a group, and returns the outcome of each. It must do all of them or none if it raises.
    If it is cancelled, it must have done none.
    """

    def __init__(self, write: Callable[[Sequence[Any]], Awaitable[Sequence[outcome.Maybe[Any]]]]) -> None:
        self._write = write
        self._waiting: deque[_Asked] = deque()
        self._turn = trio.Lock()

    async def make(self, change: Any) -> Any:
        """Make a change, and return its result, or raise its error.

        If cancelled before it is being written, it is not made. Later, cancelling waits for the outcome.
        """
        asked = _Asked(change)
        self._waiting.append(asked)
        try:
            async with self._turn:
                # The task that has the turn writes all that waits. The others find their outcome when their turn comes.
                while asked.outcome is None:
                    await self._write_group()
        except BaseException:  # noqa: ASYNC103 - what was written meanwhile is told, and the task is cancelled later
            await self._leave(asked)  # noqa: ASYNC102 - shielded there
            if asked.outcome is None:
                raise
        return asked.outcome.unwrap()

    async def idle(self) -> None:
        """Wait until nothing is written."""
        async with self._turn:
            pass

    async def _leave(self, asked: _Asked) -> None:
        while asked.is_taken:
            # Another task writes it, in a time that has a bound.
            with trio.CancelScope(shield=True):
                await asked.left_hands.wait()
        if asked.outcome is None and asked in self._waiting:
            self._waiting.remove(asked)

    async def _write_group(self) -> None:
        group = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        for asked in group:
            asked.is_taken = True
        try:
            outcomes: Sequence[outcome.Maybe[Any]] = await self._write([asked.change for asked in group])
        except Exception as error:
            # Each task gets an error of its own, because raising it writes to it.
            outcomes = [outcome.Error(copy.copy(error)) for _ in group]
        except BaseException:
            self._waiting.extendleft(reversed(group))
            self._let_go(group)
            raise
        for asked, found in zip(group, outcomes, strict=True):
            asked.outcome = found
        self._let_go(group)

    def _let_go(self, group: Sequence[_Asked]) -> None:
        for asked in group:
            asked.is_taken = False
            asked.left_hands.set()
            asked.left_hands = trio.Event()
