"""Takes a picture of the dashboard, in Chromium, while a pool works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import trio

import snakepit_trio as snakepit
from tests.helpers.browser import browsing
from tests.helpers.chromium import why_no_browser

from .shop import Shop

_SECONDS: Final = 25  # of history


def take(path: Path) -> None:
    """Write the picture to a file. Ends the program if there is no browser."""
    if why := why_no_browser():
        raise SystemExit(f"no picture of the dashboard: {why}")
    trio.run(_take, path)


async def _take(path: Path) -> None:
    async with (
        snakepit.open_pool(Shop, workers=4, name="shop") as pool,
        pool.serve_dashboard() as url,
        browsing(width=1000) as browser,
        trio.open_nursery() as nursery,
    ):
        for number in range(5):
            nursery.start_soon(_load, pool, number)
        await browser.goto(url)
        await trio.sleep(_SECONDS / 2)
        if pid := pool.list_workers()[2].pid:
            os.kill(pid, 9)  # so that the picture has a death, and what follows
        await trio.sleep(_SECONDS / 2)
        await browser.ask("screenshot", str(path))
        nursery.cancel_scope.cancel()


async def _load(pool: snakepit.Pool, number: int) -> None:
    """Call tools, one after the other, with pauses that differ."""
    tools = ("price", "classify", "forecast")
    while True:
        name = tools[number % len(tools)]
        try:
            await pool.execute(name, session=f"customer {number}")
        except snakepit.WorkerCrashed:
            continue
        await trio.sleep(0.01 * (number % 3))
