"""Which call a new call is part of: the one whose host tool waits for it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

import trio

from snakepit_trio._util.nurseries import with_those_above

from .call import Call


class _Serving(NamedTuple):
    call: Call
    task: trio.lowlevel.Task  # the host tool runs in it
    root: trio.lowlevel.Task | None  # of the task's run of trio


#: In the tasks and threads of a host tool, and in all that they start: the call that the tool runs for.
_serving: ContextVar[_Serving | None] = ContextVar("serving", default=None)


def serve(call: Call) -> None:
    """Note that the current task runs a host tool for a call."""
    _serving.set(_Serving(call, trio.lowlevel.current_task(), trio.lowlevel.current_root_task()))


def parent_of_new_calls() -> Call | None:
    """The call whose host tool waits for what the current task does, or None.

    What a host tool starts has its context, but a task in a nursery of the application may go on when the call is over,
    and calls in a run of trio in a thread belong to another loop. Neither has a parent.
    """
    serving = _serving.get()
    if serving is None or serving.call.is_over or not _is_waited_for(serving):
        return None
    return serving.call


def _is_waited_for(serving: _Serving) -> bool:
    tasks = list(with_those_above(trio.lowlevel.current_task()))
    # A system task of the same run works for a thread, which the host tool started by itself, and which waits for it.
    return serving.task in tasks or tasks[1:] == [serving.root]
