"""Runs that go the same way each time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from bridge_py.wire.errors import UsageError

T = TypeVar("T")


def run(function: Callable[..., Awaitable[T]], *args: Any, seed: int = 0, limit: float = 100_000.0) -> T:
    """`trio.run(function, *args)`, on a clock that jumps; trio's scheduler makes the same choices for the same seed.

    Time passes only when all tasks wait, and then at once. `limit`, in seconds of that clock, is when a run counts as
    hanging: `trio.TooSlowError`. What `random` gives follows the seed too. With pools in memory (`InMemory`) a run that
    fails fails the same way again, as long as nothing in it depends on threads, on real time or on the order of sets.
    """

    async def main() -> T:
        with trio.fail_after(limit):
            return await function(*args)

    with seeded(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make trio's scheduler, and `random`, follow a seed for the block.

    trio has a switch for that, for Hypothesis, and no public name for it. Raises `UsageError` if it has moved.
    """
    trio_run: Any = trio._core._run
    if not hasattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING") or not isinstance(trio_run._r, random.Random):
        raise UsageError(f"trio {trio.__version__} has no scheduler that can be seeded: use trio 0.29 to 0.35")
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate(), random.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
        trio_run._r.setstate(before[1])
        random.setstate(before[2])
