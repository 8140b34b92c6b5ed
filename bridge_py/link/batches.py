"""Joins the calls of a batch in the worker. First each call comes, then a frame that names them all.

The arguments of a call may be fetched piece by piece, and then the frame comes before them. The batch waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from bridge_py.buffers.transfers import Transfers
from bridge_py.execution.batches import BatchCall, Item
from bridge_py.tools.adapter import Tool
from bridge_py.wire.errors import Fault, WrongCallKind, fault_of
from bridge_py.wire.frames import Frame
from bridge_py.wire.specs import ITEM

_read_batch = msgspec.msgpack.Decoder(tuple[str, list[int]]).decode


class Assembly:
    """The calls that wait for a batch, and the batches that wait for arguments. For the link's thread."""

    def __init__(self, tools: Mapping[str, Tool], transfers: Transfers, refuse: Callable[[int, Fault], object]) -> None:
        self._tools = tools
        self._transfers = transfers
        self._refuse = refuse
        self._items: dict[int, Frame] = {}
        self._batches: dict[int, tuple[str, list[int]]] = {}  # by id: the tool's name, and the ids of the calls

    def take(self, frame: Frame) -> None:
        """Take a call of a batch, or the frame that names the calls."""
        if frame.name == ITEM:
            self._items[frame.call_id] = frame
        else:
            self._batches[frame.call_id] = _read_batch(frame.body)

    def complete(self) -> Iterator[BatchCall]:
        """Take out the batches whose calls have all come."""
        for batch_id, (name, ids) in list(self._batches.items()):
            if not any(call_id not in self._items and self._transfers.waits(call_id) for call_id in ids):
                del self._batches[batch_id]
                tool = self._tools.get(name)
                if tool is None or tool.together is None:
                    self._refuse_all(ids, fault := fault_of(WrongCallKind(f"{name!r} is no batch tool here")))
                    self._refuse(batch_id, fault)
                else:
                    yield BatchCall(batch_id, tool.together, list(self._items_of(ids, tool.together)))

    def _items_of(self, ids: list[int], tool: Tool) -> Iterator[Item]:
        for call_id in ids:
            frame = self._items.pop(call_id, None)
            if frame is not None:  # else it was cancelled
                yield Item(call_id, tool, frame.body, frame.attached, "", 0)

    def withdraw(self, call_id: int, fault: Fault) -> bool:
        """Refuse a call, or a batch with all its calls, if it waits here. Returns whether it did."""
        if call_id in self._items:
            self._refuse_all([call_id], fault)
            return True
        if call_id in self._batches:
            _, ids = self._batches.pop(call_id)
            self._refuse_all(ids, fault)
            self._refuse(call_id, fault)
            return True
        return False

    def _refuse_all(self, ids: list[int], fault: Fault) -> None:
        for call_id in ids:
            if self._transfers.waits(call_id):
                self._transfers.discard(call_id)
                self._refuse(call_id, fault)
            elif self._items.pop(call_id, None) is not None:
                self._refuse(call_id, fault)
