"""`setup` and `close` of an adapter may be coroutines; its mistakes are told when its worker starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory

HOOKS = "tests.helpers.hook_tools:AsyncHooks"


async def test_a_worker_that_starts_with_a_mistake_says_so() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="tool 'double' of Mistaken has 'n' as its first parameter"):
        async with snakepit.open_pool("tests.helpers.hook_tools:Mistaken", workers=1, start_timeout=30):
            pass


@pytest.mark.parametrize("config", [{}, {"concurrency": 3}, {"launcher": InMemory()}], ids=["one", "three", "memory"])
async def test_coroutines_as_hooks(config: dict[str, Any], log: Path) -> None:
    options = {"log": str(log)}
    async with snakepit.open_pool(HOOKS, workers=1, options=options, **config) as pool:
        assert await pool.execute("is_ready") is True
        assert await pool.execute("same_loop") is True
    assert log.read_text() == "closed, same loop: True"


async def test_what_a_coroutine_raises_stops_the_start() -> None:
    options = {"raises": "no database"}
    with pytest.raises(snakepit.WorkerStartError, match="ValueError: no database"):
        async with snakepit.open_pool(HOOKS, workers=1, start_timeout=30, options=options):
            pass


@pytest.mark.parametrize(
    ("tool", "message"), [("coroutine", "write `async def`"), ("generator", "`yield from` it; else send a list")]
)
async def test_what_lacks_a_word_is_told_when_it_is_returned(tool: str, message: str) -> None:
    async with snakepit.open_pool("tests.helpers.hook_tools:Forgetful", workers=1) as pool:
        with pytest.raises(snakepit.EncodeError, match=message):
            await pool.execute(tool)
