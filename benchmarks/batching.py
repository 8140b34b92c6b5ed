"""Batches: a small model of scikit-learn that predicts for each caller alone, and for many callers together."""

from __future__ import annotations

import time

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool

_CALLERS = 64
_CALLS = 6_000  # in batches; those one by one are a tenth of that


class Models(BaseAdapter):
    """A forest of ten trees for 1,797 digits."""

    def setup(self) -> None:
        """Train it."""
        from sklearn.datasets import load_digits
        from sklearn.ensemble import RandomForestClassifier

        pixels, digits = load_digits(return_X_y=True)
        self._model = RandomForestClassifier(n_estimators=10, random_state=1).fit(pixels, digits)

    @tool
    def alone(self, pixels: list[float]) -> int:
        """The digit of one caller."""
        return int(self._model.predict([pixels])[0])

    @tool(batch=32, wait=0.005)
    def together(self, pixels: list[list[float]]) -> list[int]:
        """The digits of several callers."""
        return self._model.predict(pixels).tolist()  # type: ignore[no-any-return]  # scikit-learn has no types


async def measure(scale: float) -> dict[str, float]:
    """Calls a second of 64 callers on two workers, one by one and in batches, in turns."""
    from sklearn.datasets import load_digits

    pixels = load_digits().data.tolist()
    taken = {"alone": 0.0, "together": 0.0}
    made = {"alone": 0, "together": 0}
    async with snakepit.open_pool(Models, workers=2) as pool:
        for name in taken:
            await _from_many(pool, name, pixels, _CALLERS)
        for name in ("alone", "together", "together", "alone"):
            calls = int(_CALLS * scale / (20 if name == "alone" else 2))
            began = time.perf_counter()
            await _from_many(pool, name, pixels, calls)
            taken[name] += time.perf_counter() - began
            made[name] += calls
    alone, together = (made[name] / taken[name] for name in taken)
    return {"one by one, calls/s": alone, "in batches, calls/s": together, "in batches, x": together / alone}


async def _from_many(pool: snakepit.Pool, name: str, pixels: list[list[float]], calls: int) -> None:
    left = iter(range(calls))

    async def call() -> None:
        for at in left:
            await pool.execute(name, {"pixels": pixels[at % len(pixels)]})

    async with trio.open_nursery() as nursery:
        for _ in range(_CALLERS):
            nursery.start_soon(call)
