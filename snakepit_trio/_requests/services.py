"""The services that all code for workers' questions shares."""

from __future__ import annotations

from typing import Any, Final

from bridge_py.buffers.buffer_sets import EncodedValue, Sizes, encode_value
from bridge_py.buffers.shared_memory import Segments
from bridge_py.wire.large import LARGE
from snakepit_trio.state.store import SessionStore
from snakepit_trio.telemetry import Events

from .tool_registry import ToolRegistry

_MOST_HOMES: Final = 10_000  # sessions


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
        self._homes: dict[str, str] = {}  # the worker of each session's latest call; the latest session last

    def note_home(self, session_id: str, worker_id: str) -> None:
        """Note that a worker gets a call of a session. Only workers note it that keep something for each session."""
        self._homes.pop(session_id, None)
        self._homes[session_id] = worker_id
        if len(self._homes) > _MOST_HOMES:
            del self._homes[next(iter(self._homes))]

    def has_left(self, session_id: str, worker_id: str) -> bool:
        """Whether another worker has got the latest call of a session."""
        return self._homes.get(session_id, worker_id) != worker_id

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
