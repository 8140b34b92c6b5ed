"""A worker of ours that speaks the contract, and tells its host of tools in a way of its choice. Run as a script.

The tool `announce` describes tools as its argument `how` says, and returns what the host answers.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import bridge_py
from bridge_py import AsyncSessionContext, BaseAdapter, tool
from bridge_py.contract.client import AsyncioClient
from bridge_py.wire.errors import SnakepitError
from bridge_py.wire.specs import ParameterSpec, ToolSpec

EVIL = "a\x1b[2Jb\x07\u2028c\u202ed\x9be\x00\r<"


def many(names: range, **more: Any) -> list[ToolSpec]:
    return [ToolSpec(f"t{number}", **more) for number in names]


ANNOUNCED: dict[str, list[list[ToolSpec]]] = {
    "many": [many(range(10_001))],
    "many_by_and_by": [many(range(at, at + 1000)) for at in range(0, 11_000, 1000)],
    "large_by_and_by": [many(range(at, at + 100), description="d" * 90_000) for at in range(0, 300, 100)],
    "same_name": [[ToolSpec("t"), ToolSpec("t")]],
    "no_name": [[ToolSpec("")]],
    "long_name": [[ToolSpec("t" * 1001)]],
    "evil_name": [[ToolSpec(EVIL)]],
    "many_parameters": [[ToolSpec("t", parameters=[ParameterSpec(f"p{number}") for number in range(1001)])]],
    "evil_parameter": [[ToolSpec("t", parameters=[ParameterSpec(EVIL)])]],
    "evil_description": [[ToolSpec("t", EVIL)]],
    "again": [many(range(5000))] * 5,
}


class Announcing(BaseAdapter):
    """The tool that attacks."""

    @tool
    async def announce(self, ctx: AsyncSessionContext, how: str) -> str:
        """Tell the host of tools."""
        client = AsyncioClient(sys.argv[sys.argv.index("--elixir-address") + 1])
        try:
            for tools in ANNOUNCED[how]:
                await client.register_tools(ctx.session_id or "", tools, str(os.getpid()))
        except SnakepitError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            client.close()
        await asyncio.sleep(0)
        return "taken"


if __name__ == "__main__":
    runpy.run_path(str(Path(bridge_py.__file__).with_name("__main__.py")), run_name="__main__")
