"""Property: whatever order grants and takes come in, a stream's tool takes what was granted, no more and no less.

A tool without credit waits, and goes on when there is some; one whose call is cancelled takes what is left, and then
no more. In threads and in coroutines.
"""

from __future__ import annotations

import asyncio
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_py.execution.credit import AsyncCredit, SyncCredit
from bridge_py.wire.errors import ToolCancelled

GRANTS = st.lists(st.integers(0, 5), max_size=12)


class Emptied(Exception):
    """A queue that a thread would wait at for ever."""


class Queue(SimpleQueue[int]):
    """One that does not block."""

    def get(self, block: bool = True, timeout: float | None = None) -> int:
        if self.empty():
            raise Emptied
        return super().get(block, timeout)


@given(st.lists(st.one_of(st.integers(0, 5), st.just("take")), max_size=40))
def test_a_thread_takes_what_was_granted(story: list[int | str]) -> None:
    credit, left = SyncCredit(Queue()), 0
    for step in story:
        if isinstance(step, int):
            credit.grant(step)
            left += step
        elif left:
            credit.take()
            left -= 1
        else:
            with pytest.raises(Emptied):
                credit.take()
    for _ in range(left):
        credit.take()
    credit.close()
    for _ in range(2):
        with pytest.raises(ToolCancelled):
            credit.take()


@given(GRANTS, GRANTS, st.integers(0, 3))
def test_a_coroutine_takes_what_was_granted(before: list[int], after: list[int], turns: int) -> None:
    taken = 0

    async def main() -> None:
        nonlocal taken
        credit = AsyncCredit()

        async def take() -> None:
            nonlocal taken
            while True:
                await credit.take()
                taken += 1

        for chunks in before:
            credit.grant(chunks)
        taking = asyncio.ensure_future(take())
        for chunks in after:
            for _ in range(turns):
                await asyncio.sleep(0)
            credit.grant(chunks)
        for _ in range(10 + sum(before) + sum(after)):
            await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert taken == sum(before) + sum(after)
