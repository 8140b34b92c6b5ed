"""Mistakes of newcomers are told by one message, which names the cause and the remedy; and the pool is unharmed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import snakepit_trio as snakepit
from tests.helpers.mistakes import MISTAKES, Tools


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake(name: str) -> None:
    mistake = MISTAKES[name]
    async with snakepit.open_pool(Tools, workers=1) as pool:
        with pytest.raises(mistake.error) as caught:
            await mistake.make(pool)
        told = str(caught.value)
        assert mistake.said in told
        assert mistake.remedy in told
        assert "\n" not in told
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


async def test_a_forgotten_await() -> None:
    async with snakepit.open_pool(Tools, workers=1) as pool:
        forgetful: Any = pool.execute
        with pytest.warns(RuntimeWarning, match="coroutine 'Calls.execute' was never awaited"):
            forgetful("add", {"a": 1})
        with warnings.catch_warnings(action="error"):
            assert await pool.execute("add", {"a": 1}) == 2
