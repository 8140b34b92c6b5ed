"""A batch tool: the calls of several callers run together in one call of the function.

It prints:

    far: classify: the argument 'length' does not fit: Expected `float`, got `str` - at `length`
    1.0: short
    4.2: short
    7.5: long
    -1.0: tool 'classify' on worker ... raised ValueError: -1.0 is no length
    calls that ran together: ...
"""

from __future__ import annotations

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool


def kind_of(length: float) -> object:
    """A result, or an error, for one caller."""
    if length < 0:
        return ValueError(f"{length} is no length")
    return "long" if length > 5 else "short"


class Models(BaseAdapter):
    """A very small model."""

    def setup(self) -> None:
        """Begin to count."""
        self._batches: list[int] = []

    @tool(batch=32, wait=0.005)
    def classify(self, length: list[float]) -> list[object]:
        """Classify a length for each caller."""
        self._batches.append(len(length))
        return [kind_of(each) for each in length]

    @tool
    def batches(self) -> list[int]:
        """How many calls ran together."""
        return self._batches


async def main() -> None:
    """Ask for several at the same time."""
    async with snakepit.open_pool(Models, workers=1) as pool:

        async def ask(length: object) -> None:
            try:
                print(f"{length}: {await pool.execute('classify', {'length': length})}")
            except (snakepit.ToolError, snakepit.InvalidArguments) as error:
                print(f"{length}: {error}")

        async with trio.open_nursery() as nursery:
            for length in (1.0, 4.2, 7.5, -1.0, "far"):
                nursery.start_soon(ask, length)
        print(f"calls that ran together: {await pool.execute('batches')}")


if __name__ == "__main__":
    trio.run(main)
