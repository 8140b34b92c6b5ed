"""A host that tests kill while its template imports, or while its workers are busy. Writes a file at that moment."""

from __future__ import annotations

import sys

import trio

import snakepit_trio as snakepit


async def main(stage: str, path: str) -> None:
    """Open a pool with a template."""
    env = {"TROUBLE": f"hang {path}"} if stage == "importing" else {}
    async with snakepit.open_pool(
        "tests.helpers.template_tools:TemplateTools", workers=2, template=True, env=env, start_timeout=600
    ) as pool:
        await pool.execute("fork")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "daemon_and_sleep", {"path": path})


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
