"""Batches in the worker: the calls of several callers that one call of a function runs.

A call of a batch may be cancelled alone. If the batch has not started, the call is left out. If it has, its code goes
on for the others, and its result is dropped. The batch itself is a call too, with an id and an end of its own: the
host cancels it when no caller is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.tools.adapter import Tool
from bridge_py.tools.batches import outcomes
from bridge_py.wire.errors import CANCELLED, Fault

from .tool_call import ToolCall

Outcome = EncodedValue | Fault


class Item(ToolCall):
    """One call of a batch."""

    __slots__ = ()

    def cancel(self) -> None:
        """Mark it as cancelled. Its code, if it runs, is also that of others."""
        self.cancelled = self.interrupted = True


class BatchCall(ToolCall):
    """A call of a function for the calls of a batch."""

    __slots__ = ("items", "live", "outcomes", "refused")

    def __init__(self, id: int, tool: Tool, items: Sequence[Item]) -> None:
        """`tool` is the one that runs calls together."""
        super().__init__(id, tool, b"", b"", "", 0)
        self.items = items
        #: The calls that the function gets, once their arguments are decoded.
        self.live: list[Item] = []
        #: The calls that it does not get, because their arguments do not fit, or because they were cancelled.
        self.refused: list[tuple[Item, Fault]] = []
        self.outcomes: deque[tuple[Item, Outcome]] = deque()

    def arguments(self) -> dict[str, Any]:
        """Decode the arguments of all calls, to a list for each parameter. This works once."""
        found: list[dict[str, Any]] = []
        for item in self.items:
            try:
                if not item.cancelled:
                    found.append(item.arguments())
                    self.live.append(item)
                    continue
                fault = Fault(CANCELLED, "the call had not started")
            except Exception as error:  # the arguments of one caller are no concern of the others
                fault = item.tool.fault(error)
            self.refused.append((item, fault))
        return {name: [each[name] for each in found] for name in self.tool.hints}

    def take(self, returned: Any, pack: Callable[[Any, str], EncodedValue]) -> None:
        """Take what the function has returned, and encode each result. Raises `TypeError` and `ValueError`."""
        for item, outcome in zip(self.live, outcomes(self.tool.name, returned, len(self.live)), strict=True):
            self.outcomes.append((item, _encoded(item, outcome, pack)))


def _encoded(item: Item, outcome: Any, pack: Callable[[Any, str], EncodedValue]) -> Outcome:
    if item.cancelled:
        return Fault(CANCELLED, "the call was cancelled")
    if isinstance(outcome, BaseException):
        return item.tool.fault(outcome)
    try:
        return pack(outcome, "result")
    except Exception as error:  # the result of one caller is no concern of the others
        return item.tool.fault(error)
