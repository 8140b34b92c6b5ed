"""The services that all code for workers' questions shares."""

from __future__ import annotations

from typing import Any

from bridge_py.buffers.buffer_sets import EncodedValue, Sizes, encode_value
from bridge_py.buffers.shared_memory import Segments
from bridge_py.wire.large import LARGE
from snakepit_trio.state.store import SessionStore
from snakepit_trio.telemetry import Events

from .tool_registry import ToolRegistry


class HostServices:
    """The store, the tools, and shared memory for large answers."""

    def __init__(
        self,
        store: SessionStore,
        tools: ToolRegistry,
        sizes: Sizes,
        session_ttl: float,
        events: Events,
        most_at_once: int = LARGE,
    ) -> None:
        self.store = store
        self.tools = tools
        self.sizes = sizes
        self.session_ttl = session_ttl  # seconds; for sessions that workers make
        self.events = events
        self.most_at_once = most_at_once  # bytes; larger requests are read in a thread
        self._segments = Segments()

    def encode(self, value: Any, what: str) -> EncodedValue:
        """Encode a value to be sent. Its large buffers are still to be copied. Raises `EncodeError`."""
        return encode_value(value, what, self.sizes)

    @property
    def segments(self) -> Segments | None:
        """The shared memory that large buffers are copied into; None if the workers use none."""
        return self._segments if self.sizes.shared else None

    def close(self) -> None:
        """Give the shared memory back."""
        self._segments.close()
