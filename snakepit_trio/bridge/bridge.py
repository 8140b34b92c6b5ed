"""What all that serves workers' questions shares."""

from __future__ import annotations

from bridge_py.cargo import Sizes
from snakepit_trio.freight import Freight
from snakepit_trio.state.store import SessionStore
from snakepit_trio.tools import ToolRegistry


class Bridge:
    """The store, the tools, and shared memory for large answers."""

    def __init__(self, store: SessionStore, tools: ToolRegistry, sizes: Sizes, places: int) -> None:
        self.store = store
        self.tools = tools
        self.sizes = sizes
        # A place is held while an answer is copied, and never while anything else is waited for.
        self.freight = Freight(places)
