"""What `test_store` compares the store with: dicts."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from snakepit_trio.state.watching import Update, Watcher


@attrs.define
class ModelVariable:
    value: int
    version: int = 1
    read_only: bool = False
    versions: list[tuple[int, int]] = attrs.field(factory=list)
    optimizer: str | None = None
    on: set[str] = attrs.field(factory=set)


@attrs.define
class ModelSession:
    end: float | None
    ttl: float | None
    variables: dict[str, ModelVariable] = attrs.field(factory=dict)
    programs: dict[str, Any] = attrs.field(factory=dict)

    def dependents(self, names: Iterable[str]) -> set[str]:
        """All that depend on them, directly or not."""
        found: set[str] = set()
        left = set(names)
        while left:
            left = {name for name, variable in self.variables.items() if variable.on & left} - found
            found |= left
        return found


@attrs.define
class ModelWatch:
    session: ModelSession
    watcher: Watcher
    names: frozenset[str]
    pending: dict[str, tuple[str, int | None, int]] = attrs.field(factory=dict)  # kind, value, missed

    def tell(self, name: str, kind: str, value: int | None) -> None:
        if name in self.names:
            before = self.pending.get(name)
            missed = 0 if before is None else before[2] + 1
            if kind == "dependency" and before is not None:
                kind = before[0]
            self.pending[name] = kind, value, missed


@contextmanager
def trio_thread(main: Callable[[Callable[[Any], None], trio.Event], Awaitable[None]]) -> Iterator[Any]:
    """Run `main(ready, end)` in a thread; gives what it says is ready, and how to run async functions there."""
    ready = threading.Event()
    told: list[Any] = []

    async def run() -> None:
        end = trio.Event()
        told.extend([trio.lowlevel.current_trio_token(), end])

        def is_ready(value: Any) -> None:
            told.append(value)
            ready.set()

        await main(is_ready, end)

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    ready.wait(30)
    token, end, value = told
    try:
        yield value, lambda function: trio.from_thread.run(function, trio_token=token)
    finally:
        token.run_sync_soon(end.set)
        thread.join(30)


async def next_update(watcher: Watcher) -> Update:
    with trio.fail_after(30):
        return await watcher.__anext__()


async def stops(watcher: Watcher) -> None:
    # A coroutine cannot let StopAsyncIteration out of a generator of trio's.
    with trio.fail_after(60):
        await watcher.__anext__()


def field(variable: Any, name: str) -> Any:
    return variable[name] if isinstance(variable, dict) else getattr(variable, name)


def seen(variable: Any) -> tuple[int, int]:
    return field(variable, "value"), field(variable, "version")
