"""Opening a pool: from the settings, or the adapters, that an application gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Unpack

import attrs
import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.adapters import Adapter
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.options import AdapterLike, FurtherOptions
from snakepit_trio._util.blocks import block
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.ownership import require_trio
from snakepit_trio._util.validation import refuse
from snakepit_trio.errors import WorkerStartError

from .near_misses import unknown_setting
from .pool import Pool, opened

logger = get_logger("snakepit.pool")


@block("async with snakepit_trio.open_pool(...) as pool")
@trio.lowlevel.enable_ki_protection
async def open_pool(
    adapter: AdapterLike | None = None,
    *,
    adapters: Sequence[AdapterLike] = (),
    **config: Unpack[FurtherOptions],
) -> AsyncIterator[Pool]:
    """Open a pool of worker processes.

    Use it as `async with open_pool("my_app.tools:Tools") as pool`.

    The block is entered when all workers are ready. When it is left, in whatever way, all calls are
    stopped, and all workers are ended and reaped, in `shutdown_timeout` seconds at the most. An exception
    of the block comes out unchanged. Without an adapter, the pool uses the adapter that `SNAKEPIT_ADAPTER` or
    `[tool.snakepit]` in pyproject.toml names, else the showcase. By default there are two workers (`workers=2`), and
    each runs one call at a time (`concurrency=1`). With `workers=(2, 8)` the load decides how many workers there are.
    `PoolOptions` has all settings with their types. The fields of `PoolConfig` with the same names tell what each
    setting means, its unit and its default.

    With `adapters` in place of `adapter`, the pool tries them in order, and uses the first adapter whose workers can
    start. The reasons against the others are logged, and are in `Pool.passed_over`. If no adapter can be used, the
    `UsageError` has all the reasons.

    In the main thread, SIGINT and SIGTERM end the pool in order. The first signal cancels the block and then
    raises `KeyboardInterrupt` or `SystemExit(143)`, unless the application handles that signal itself. A further
    signal while the pool closes kills its workers at once. A further signal before that breaks into the block, as it
    would without a pool.

    With `pickle=True`, `run`, `iterate` and `map` take lambdas, local functions and any object that cloudpickle can
    pickle. Pickles run code where they are read: a worker can then run any code in this process.

    Raises `UsageError` for an invalid configuration, and outside of trio. Raises, at once, `WorkerStartError` if a
    worker cannot start, and `OutOfResources` if this process lacks disk space, descriptors or memory.
    """
    require_trio()
    if isinstance(adapters, str) or not isinstance(adapters, Sequence):
        raise refuse("adapters", adapters, "give a list of adapters, or adapter= for one")
    if adapters and adapter is not None:
        raise UsageError("give adapter= or adapters=, not both")
    made_of: dict[str, Any] = {**config}  # `PoolConfig` converts from wider types than its fields have
    try:
        settings = [PoolConfig(adapter=each, **made_of) for each in (*adapters, adapter) if each or not adapters]
    except TypeError as error:
        raise _better(error) from None
    async with AsyncExitStack() as stack:
        yield await (_open_first(stack, settings) if adapters else _open_only(stack, settings[0]))  # noqa: ASYNC119 - `block` makes a context manager


@trio.lowlevel.enable_ki_protection
async def _open_only(stack: AsyncExitStack, settings: PoolConfig) -> Pool:
    if settings.adapter.protocol != "link" and (reason := settings.adapter.unavailable(settings.python)):
        raise UsageError(f"{settings.adapter!r} cannot be used here: {reason}")
    return await stack.enter_async_context(opened(Pool(settings)))


@trio.lowlevel.enable_ki_protection
async def _open_first(stack: AsyncExitStack, candidates: Sequence[PoolConfig]) -> Pool:
    passed_over: list[tuple[Adapter, str]] = []
    for settings in candidates:
        reason = settings.adapter.unavailable(settings.python)
        if reason is None:
            try:
                pool = await stack.enter_async_context(opened(Pool(settings, tuple(passed_over))))
            except WorkerStartError as error:
                reason = str(error)
            else:
                return pool
        logger.warning("%r is passed over: %s", settings.adapter, reason)
        passed_over.append((settings.adapter, reason))
    raise UsageError("no adapter can be used here: " + "; ".join(f"{each!r}: {why}" for each, why in passed_over))


def _better(error: TypeError) -> Exception:
    text = str(error)
    if "unexpected keyword argument" not in text:
        return error
    known = [field.name for field in attrs.fields(PoolConfig) if field.init]
    return unknown_setting(text.partition("argument '")[2].partition("'")[0], known)
