"""A nursery for work in the background of a block. Below: the tasks around a task, and the texts of groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import trio

from .ownership import require_trio


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks end with the block.

    An exception of the block comes out as itself, never in a group. An exception of a task cancels the block and
    comes out of it. A single exception comes out bare, without a group. Raises `UsageError` outside of trio.
    """
    require_trio()
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # noqa: ASYNC103 - raised below, outside the nursery
                failure = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        _, errors = group.split(trio.Cancelled)
        if errors is not None and (failure is None or _is_cancellation(failure)):
            failure = _only_one(errors)
    except trio.Cancelled as cancelled:  # noqa: ASYNC103 - raised below
        failure = failure or cancelled
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def _is_cancellation(error: BaseException) -> bool:
    # A nursery inside the block makes a group of the cancellations of its tasks.
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _only_one(group: BaseExceptionGroup[BaseException]) -> BaseException:
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        (inner,) = group.exceptions
        if not isinstance(inner, BaseExceptionGroup):
            return inner
        group = inner
    return group


def with_those_above(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """The task, then the task that opened its nursery, and so on, up to the root of the run."""
    above: trio.lowlevel.Task | None = task
    while above is not None:
        yield above
        above = None if above.parent_nursery is None else above.parent_nursery.parent_task


def told(error: BaseException) -> str:
    """The text of an error, or the name of its class if it has no text. A group of one counts as that one error."""
    if isinstance(error, BaseExceptionGroup):
        error = _only_one(error)
    return str(error) or type(error).__name__
