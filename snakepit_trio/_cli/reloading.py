"""`snakepit serve --reload`: watches files, and has the pool start its workers anew when one of them changes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import trio
import watchfiles

from snakepit_trio import SnakepitError

from .servers import say


class Reloads(Protocol):
    """A pool that can start its workers anew."""

    async def reload(self) -> object:
        """See `Pool.reload`."""
        ...


async def reload_on_changes(pool: Reloads, folders: Sequence[Path], ending: trio.Event) -> None:
    """Reload the pool after each change of a Python file, until `ending` is set.

    Changes while the pool reloads count together, and make it reload once more. New code that cannot start leaves the
    old workers as they are; the reason is printed. If cancelled, a thread of watchfiles may take a moment to end.
    """
    changes = watchfiles.awatch(
        *folders, watch_filter=watchfiles.PythonFilter(), debounce=400, rust_timeout=500, stop_event=ending
    )
    async with aclosing(changes):
        async for changed in changes:
            await _reload(pool, sorted({Path(path).name for _, path in changed}))


async def _reload(pool: Reloads, names: list[str]) -> None:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    say(f"{', '.join(names[:3])}{more} changed: the workers are started anew")
    try:
        await pool.reload()
    except SnakepitError as error:
        say(f"the old workers stay, because the new ones cannot start: {error}", err=True)
    else:
        say("the workers have the new code")
