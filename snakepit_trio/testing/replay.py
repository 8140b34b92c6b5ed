"""Runs that go the same way each time, and end."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from bridge_py.wire.errors import UsageError

T = TypeVar("T")


class Hanging(Exception):
    """A run hangs where no cancellation reaches it. The message tells where its tasks wait."""


def run(function: Callable[..., Awaitable[T]], *args: Any, seed: int = 0, limit: float = 10_000.0) -> T:
    """`trio.run(function, *args)`, on a clock that jumps. For the same seed trio's scheduler makes the same choices.

    Time passes only when all tasks wait, and then it passes at once. After `limit` seconds of that clock a run counts
    as hanging: it is cancelled, which raises `trio.TooSlowError`. If that does not end the run, it raises `Hanging`.
    `random` follows the seed too. With pools in memory (`InMemory`) a run that fails will fail the same way again, as
    long as nothing in it depends on threads, on real time or on the order of sets.
    """

    async def main() -> T:
        trio.lowlevel.spawn_system_task(watch, 2 * limit)
        with trio.fail_after(limit):
            return await function(*args)

    with seeded(seed), translated():
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make trio's scheduler, and `random`, follow a seed for the block.

    trio has a switch for that, made for Hypothesis, but no public name for it. Raises `UsageError` if this version of
    trio does not have the switch.
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


async def watch(limit: float) -> None:
    """End a run that has not ended after `limit` seconds, even if its tasks are shielded. This is a system task."""
    await trio.sleep(limit)
    root = trio.lowlevel.current_root_task()
    assert root is not None
    text = "\n".join([f"it has not ended after {limit:g} s; its tasks wait:", *_places(root, "  ")])
    _unshield(root)
    raise Hanging(text)


@contextmanager
def translated() -> Iterator[None]:
    """Raise `Hanging` in place of the `trio.TrioInternalError` that trio makes of it."""
    try:
        yield
    except trio.TrioInternalError as error:
        cause: BaseException | None = error.__cause__
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, Hanging):
            raise cause from None
        raise


def _unshield(task: Any) -> None:
    # When a system task has failed, trio cancels the rest of the run, and waits until it ends.
    status = task._cancel_status
    while status is not None:
        status._scope.shield = False
        status = status.parent
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            _unshield(child)


def _places(task: trio.lowlevel.Task, indent: str) -> Iterator[str]:
    frames = [(frame.f_code.co_filename, number, frame.f_code.co_name) for frame, number in task.iter_await_frames()]
    ours = [frame for frame in frames if "/trio/" not in frame[0]] or frames
    where = " at {}:{} in {}".format(*ours[-1]) if ours else ""
    yield f"{indent}{task.name}{where}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda child: child.name):
            yield from _places(child, indent + "  ")
