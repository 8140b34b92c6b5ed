"""What the tests of the showcase share: data, and how they take its streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.datasets

import snakepit_trio as snakepit

Chunk = dict[str, Any]
DIGITS, TRUTHS = sklearn.datasets.load_digits(return_X_y=True)
PRICES = 100 + np.cumsum(np.random.default_rng(3).normal(0, 1, 500))


async def stream(pool: snakepit.Pool, tool: str, **args: Any) -> list[Chunk]:
    """All chunks of a stream."""
    async with pool.stream(tool, args) as chunks:
        return [chunk async for chunk in chunks]
