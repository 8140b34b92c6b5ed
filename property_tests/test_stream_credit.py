"""Property: whatever order grants and takes come in, a stream's tool takes what was granted, no more and no less.

A tool without credit waits, and goes on when there is some; one whose call is cancelled takes what is left, and then
no more. While credit is left, it may take more than that, and owes the rest. In threads and in coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from bridge_py.execution.credit import AsyncCredit, SyncCredit
from bridge_py.wire.errors import ToolCancelled
from snakepit_trio.testing import InMemory

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


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=40))
def test_a_debt_is_paid_before_a_thread_takes_more(story: list[tuple[bool, int]]) -> None:
    credit, left = SyncCredit(Queue()), 0
    for is_grant, amount in story:
        if is_grant:
            credit.grant(amount)
            left += amount
        elif left > 0:
            credit.take(amount)
            left -= amount
        else:
            assert not credit.is_left
            with pytest.raises(Emptied):
                credit.take(amount)


@given(GRANTS, GRANTS, st.integers(0, 3), st.integers(1, 4))
def test_a_coroutine_takes_what_was_granted(before: list[int], after: list[int], turns: int, cost: int) -> None:
    taken = 0

    async def main() -> None:
        nonlocal taken
        credit = AsyncCredit()

        async def take() -> None:
            nonlocal taken
            while True:
                await credit.take(cost)
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
    assert taken == -(-(sum(before) + sum(after)) // cost)


class Sized(BaseAdapter):
    """Yields what it is told to."""

    @tool
    def sync(self, sizes: list[int]) -> Iterator[bytes]:
        """Yield so many bytes each."""
        for size in sizes:
            MADE.append(size)
            yield bytes(size)

    @tool
    async def coroutine(self, sizes: list[int]) -> AsyncIterator[bytes]:
        """Yield so many bytes each."""
        for size in sizes:
            MADE.append(size)
            yield bytes(size)


MADE: list[int] = []
SIZES = st.lists(st.sampled_from([0, 1, 4_000, 5_000, 9_000, 20_000, 60_000, 200_000]), max_size=30)


def _cost(size: int) -> int:
    return -(-size // 4096) or 1


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 40), st.sampled_from(["sync", "coroutine"]), st.integers(0, 5))
def test_a_stream_of_any_sizes_ends_and_never_gets_further_ahead_than_its_window(
    sizes: list[int], window: int, tool: str, quick: int
) -> None:
    async def main() -> None:
        async with snakepit.open_pool(Sized, workers=1, launcher=InMemory(), stream_window=window) as pool:
            MADE.clear()
            taken = []
            async with pool.stream(tool, {"sizes": sizes}) as chunks:
                async for chunk in chunks:
                    taken.append(len(chunk))
                    if len(taken) > quick:
                        await trio.sleep(1)
                    # The last one was made and not sent, the one before it may owe credit.
                    ahead = MADE[len(taken) : -2]
                    assert sum(map(_cost, ahead)) < window
            assert taken == sizes

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.001))
