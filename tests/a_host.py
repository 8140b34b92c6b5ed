"""A host that tests/test_processes.py kills. Prints the pids of its workers, their children and its guardian."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import trio

import snakepit_trio as snakepit


async def main(how: str) -> None:
    """Open a pool, have its workers busy, say so, and wait for the end."""
    async with (
        snakepit.open_pool("tests.tools:Tools", workers=2, name="a-host") as pool,
        trio.open_nursery() as nursery,
    ):
        log = Path(sys.argv[2])
        if how == "busy":
            for _ in range(2):
                nursery.start_soon(pool.execute, "hold_the_gil_with_children", {"path": str(log)})
            while not log.exists() or len(log.read_text().split()) < 4:
                await trio.sleep(0.01)
        workers = [worker.pid for worker in pool.list_workers()]
        children = [int(pid) for pid in log.read_text().split()] if log.exists() else []
        (guardian,) = [child.pid for child in psutil.Process().children() if "guardian.py" in str(child.cmdline())]
        print(guardian, *workers, *children, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
