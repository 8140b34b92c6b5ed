"""A worker dies; its own call fails, the others do not notice, and it is replaced.

It prints:

    double returned 8
    crash failed: worker pool-... died (killed by signal 11, SIGSEGV) while it ran 'crash'
    restarts: 1
"""

from __future__ import annotations

import trio
from tools import Tools

import snakepit_trio as snakepit


async def main() -> None:
    """Run it."""
    async with snakepit.open_pool(Tools, workers=2) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, pool, "crash", {})
            nursery.start_soon(run, pool, "double", {"n": 4})
        await pool.await_ready()
        print("restarts:", pool.get_stats().restarts)


async def run(pool: snakepit.Pool, name: str, args: dict[str, object]) -> None:
    """One call, and what became of it."""
    try:
        print(name, "returned", await pool.execute(name, args))
    except snakepit.WorkerCrashed as error:
        print(name, "failed:", error)


if __name__ == "__main__":
    trio.run(main)
