"""A host that `benchmarks.scenarios` kills. Prints pids: of its guardian, its keepers, its workers, their children."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import psutil
import trio

import snakepit_trio as snakepit


def helpers(script: str) -> list[int]:
    """Our children that run a script."""
    return [child.pid for child in psutil.Process().children() if script in str(child.cmdline())]


async def main(log: Path) -> None:
    """Open a pool, have its workers busy, say so, and wait for the end."""
    tools = "tests.helpers.tools:Tools"
    async with snakepit.open_pool(tools, workers=2, name="a-host") as pool, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(partial(pool.execute, "hold_the_gil_with_children", {"path": str(log)}, timeout=None))
        while not log.exists() or len(log.read_text().split()) < 4:
            await trio.sleep(0.01)
        workers = [worker.pid for worker in pool.list_workers()]
        (guardian,), keepers = helpers("guardian.py"), helpers("keeper.py")
        print(guardian, *keepers, *workers, *log.read_text().split(), flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
