"""The tasks of a trio loop and the threads of this process, with their stacks, as plain values of bounded size."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FrameType
from typing import Any, Final

import trio

_MOST_TASKS: Final = 2000
_MOST_THREADS: Final = 100
_MOST_FRAMES: Final = 40  # of one stack: the innermost
_LONGEST: Final = 500  # characters of a name

Frame = tuple[str, int, str]  # file, line, function


def describe_tasks() -> list[dict[str, Any]]:
    """The tasks of the running loop, each before its children; `depth` counts the tasks above it.

    `nursery` numbers the nursery of its parent that a task is in, from 1 on; 0 for the first task. `frames` begin with
    the outermost. Of more than 2,000 tasks, the others are left out.
    """
    root = trio.lowlevel.current_root_task()
    return [] if root is None else [_task(*each) for each in islice(_walk(root), _MOST_TASKS)]


def describe_threads() -> list[dict[str, Any]]:
    """The other threads of this process, with their stacks, the outermost frame first. At most 100."""
    here = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = [(ident, frame) for ident, frame in sys._current_frames().items() if ident != here]
    return [
        {"name": _text(names.get(ident, "unknown")), "frames": _cut(traceback.walk_stack(frame), is_inner_first=True)}
        for ident, frame in found[:_MOST_THREADS]
    ]


def _walk(root: trio.lowlevel.Task) -> Iterator[tuple[trio.lowlevel.Task, int, int, trio.Nursery | None]]:
    # Without recursion: tasks may be nested more deeply than the stack.
    left = [(root, 0, 0, root.parent_nursery)]
    while left:
        task, depth, number, nursery = left.pop()
        yield task, depth, number, nursery
        children = [
            (child, depth + 1, number, nursery)
            for number, nursery in enumerate(task.child_nurseries, 1)
            for child in sorted(nursery.child_tasks, key=lambda task: task.name)
        ]
        left += reversed(children)


def _task(task: trio.lowlevel.Task, depth: int, number: int, nursery: trio.Nursery | None) -> dict[str, Any]:
    return {
        "name": _text(task.name),
        "depth": depth,
        "nursery": number,
        "is_cancelled": nursery is not None and nursery.cancel_scope.cancel_called,
        "frames": _cut(task.iter_await_frames(), is_inner_first=False),
    }


def _cut(frames: Iterable[tuple[FrameType, int]], *, is_inner_first: bool) -> list[Frame]:
    kept = list(islice(frames, _MOST_FRAMES)) if is_inner_first else list(deque(frames, _MOST_FRAMES))
    found = [(_text(frame.f_code.co_filename), line or 0, _text(frame.f_code.co_qualname)) for frame, line in kept]
    return found[::-1] if is_inner_first else found


def _text(text: str) -> str:
    # Names of files may have halves of surrogate pairs, which JSON cannot have.
    return text[:_LONGEST].encode("utf-8", "replace").decode()
