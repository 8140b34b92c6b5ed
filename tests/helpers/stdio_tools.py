"""What the tests of stdin and stdout share: adapters of each kind, and how to open them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit
from snakepit_trio._config.stdio_adapters import StdioJson, StdioMsgpack

WORKER = str(Path(__file__).with_name("stdio_worker.py"))
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "stdio"
PERL = StdioJson(str(EXAMPLES / "worker.pl"))
JSON = StdioJson(WORKER)
MSGPACK = StdioMsgpack(WORKER, ["--msgpack"])
CANCELS = StdioJson(WORKER, ["--cancel"])
BOTH = pytest.mark.parametrize("adapter", [JSON, MSGPACK], ids=["json", "msgpack"])


def open_it(adapter: StdioJson, **config: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    return snakepit.open_pool(adapter, **{"workers": 1, **config})


def pid_of(pool: snakepit.Pool) -> int:
    (worker,) = pool.list_workers()
    assert worker.pid is not None
    return worker.pid


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def until_lines(path: Path, least: int) -> None:
    while len(lines_of(path)) < least:
        await trio.sleep(0.005)
