"""A host with a pool on a Ray cluster. It prints the pid of a process that a tool has started, and runs on."""

from __future__ import annotations

import sys

import trio

import snakepit_trio as snakepit
from tests.cluster.ray_tools import Tools


async def main(address: str, name: str) -> None:
    """Run until killed."""
    launcher = snakepit.launchers.Ray(address)
    async with snakepit.open_pool(Tools, name=name, workers=3, launcher=launcher, start_timeout=60) as pool:
        print(await pool.execute("spawn"), flush=True)
        await pool.execute("wait", {"seconds": 1000}, timeout=None)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
