"""Tools that use the state of their session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool
from bridge_py.wire.errors import VersionConflict


class StateTools(BaseAdapter):
    """All of them."""

    def __init__(self) -> None:
        self.kept: dict[str, SessionContext] = {}

    @tool
    def call(self, context: SessionContext, method: str, args: list[Any], options: dict[str, Any]) -> Any:
        """Call a method of the context."""
        return getattr(context, method)(*args, **options)

    @tool
    async def call_async(
        self, context: AsyncSessionContext, method: str, args: list[Any], options: dict[str, Any]
    ) -> Any:
        """The same, awaiting."""
        return await getattr(context, method)(*args, **options)

    @tool
    def outcomes(self, context: SessionContext, updates: dict[str, Any], atomic: bool = False) -> dict[str, Any]:
        """Update many; errors by their class."""
        return {
            name: type(found).__name__ if isinstance(found, Exception) else found.version
            for name, found in context.update_variables(updates, atomic=atomic).items()
        }

    @tool
    def item(self, context: SessionContext, name: str) -> Any:
        """`context[name]`."""
        return context[name]

    @tool
    def put_item(self, context: SessionContext, name: str, value: Any) -> None:
        """`context[name] = value`."""
        context[name] = value

    @tool
    def delete_item(self, context: SessionContext, name: str) -> None:
        """`del context[name]`."""
        del context[name]

    @tool
    def contains(self, context: SessionContext, name: str) -> bool:
        """`name in context`."""
        return name in context

    @tool
    async def async_item(self, context: AsyncSessionContext, name: str) -> Any:
        """`await context[name]`."""
        return await context[name]

    @tool
    async def blocking_coroutine(self, context: SessionContext) -> Any:
        """A coroutine that takes the wrong context."""
        return context["x"]

    @tool
    def claim(self, context: SessionContext, session_id: str) -> Any:
        """Claim to be of another session, and then behind the back of what keeps it from that."""
        for claim in ("session_id", "call_id"):
            try:
                setattr(context, claim, session_id)
            except AttributeError:
                continue
            return f"{claim} could be set"
        context._session_id = session_id
        return context.get_variable_value("x", bypass_cache=True)

    @tool
    def keep(self, context: SessionContext) -> None:
        """Keep the context beyond the call."""
        self.kept["context"] = context

    @tool
    def use_kept(self) -> Any:
        """Use it."""
        return self.kept["context"].get_variable_value("x", bypass_cache=True)

    @tool
    def increment(self, context: SessionContext, name: str, times: int) -> int:
        """Add one, optimistically; returns how often somebody else was first."""
        conflicts = done = 0
        while done < times:
            found = context.get_variable(name, bypass_cache=conflicts > 0)
            try:
                context.update_variable(name, found.value + 1, expected_version=found.version)
                done += 1
            except VersionConflict:
                conflicts += 1
        return conflicts

    @tool
    async def increment_async(self, context: AsyncSessionContext, name: str, times: int) -> int:
        """The same, in a coroutine."""
        conflicts = done = 0
        while done < times:
            found = await context.get_variable(name)
            try:
                await context.update_variable(name, found.value + 1, expected_version=found.version)
                done += 1
            except VersionConflict:
                conflicts += 1
        return conflicts

    @tool
    def acknowledged(self, context: SessionContext, name: str, path: str) -> None:
        """Count up for ever, and write each number that the host has acknowledged."""
        with open(path, "a", buffering=1) as log:
            while True:
                log.write(f"{context.update_variable(name, context[name] + 1).value}\n")

    @tool
    def poll(self, context: SessionContext, name: str, seconds: float) -> list[Any]:
        """The values that a variable has, one after the other, from the cache if it is there."""
        seen = [context[name]]
        end = time.monotonic() + seconds
        while time.monotonic() < end and seen[-1] != "end":
            if (value := context[name]) != seen[-1]:
                seen.append(value)
        return seen

    @tool
    def values(self, context: SessionContext, name: str) -> Iterator[Any]:
        """A stream of a variable's values."""
        while (value := context[name]) != "end":
            yield value
            time.sleep(0.001)

    @tool
    def ask_for_ever(self, context: SessionContext) -> None:
        """Never end by itself."""
        while True:
            context.get_variable("x", bypass_cache=True)

    @tool
    async def ask_for_ever_async(self, context: AsyncSessionContext) -> None:
        """The same, in a coroutine."""
        while True:
            await context.get_variable("x", bypass_cache=True)


class StrictTools(StateTools):
    """Variables must be registered before they are set."""

    strict = True
    cache_ttl = 0.0
