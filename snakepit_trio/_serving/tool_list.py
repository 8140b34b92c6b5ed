"""The schemas of a pool's tools, kept for as long as the pool has the same workers."""

from __future__ import annotations

import trio

from .schemas import ServedPool, ToolSchema, tool_schemas


class ToolList:
    """Asks a worker for the schemas when they are first needed, and again when the pool has got new workers.

    Foreign workers tell of their tools at any time, so what they have told is read each time.
    """

    def __init__(self, pool: ServedPool) -> None:
        self._pool = pool
        self._asking = trio.Lock()
        self._of: object = None  # the pool's table of tools, which is another one after each start of a worker
        self._schemas: dict[str, ToolSchema] = {}

    async def schemas(self) -> dict[str, ToolSchema]:
        """The schemas by the names of the tools. Raises as `tool_schemas` does; cancelling leaves the old ones."""
        if self._pool.config.adapter.protocol != "link":
            return await tool_schemas(self._pool)
        dispatcher = self._pool._runner.dispatcher
        if self._of is not dispatcher.tools:
            async with self._asking:
                if self._of is not (tools := dispatcher.tools):
                    self._schemas = await tool_schemas(self._pool)
                    self._of = tools
        return self._schemas
