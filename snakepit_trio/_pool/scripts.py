"""A pool for a plain script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, Unpack

import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.options import AdapterLike, FurtherOptions

from .opening import open_pool
from .pool import Pool

T = TypeVar("T")


def run_as_script(
    function: Callable[[Pool], Awaitable[T]],
    adapter: AdapterLike | None = None,
    *,
    timeout: float = 15,
    **config: Unpack[FurtherOptions],
) -> T:
    """Run `await function(pool)` with a pool of its own, from a plain script, and return its result.

    Starts trio. When this returns or raises, no process of the pool is left; ending them takes
    `timeout` seconds at the most. `config` are the settings of `open_pool`. Raises `UsageError` inside of trio.
    """
    if trio.lowlevel.in_trio_run():
        raise UsageError("run_as_script starts trio, and trio runs here already: use `async with open_pool()`")
    config.setdefault("shutdown_timeout", timeout)

    async def main() -> T:
        async with open_pool(adapter, **config) as pool:
            return await function(pool)

    return trio.run(main)
