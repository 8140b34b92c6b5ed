"""Calls, streams, many calls, a timeout, and an error.

It prints:

    one call: 42
    epoch 0: loss 0.5
    epoch 1: loss 0.25
    epoch 2: loss 0.125
    a thousand calls: 999000
    too slow: 'stubborn' was stopped: it did not end within 0.2 s...
    wrong: double: the argument 'n' does not fit: Expected `int`, got `str` - at `n`
"""

from __future__ import annotations

import trio
from tools import Tools

import snakepit_trio as snakepit


async def main() -> None:
    """Run it."""
    async with snakepit.open_pool(Tools, workers=2) as pool:
        print("one call:", await pool.execute("double", {"n": 21}))

        async with pool.stream("train", {"epochs": 3}) as chunks:
            async for chunk in chunks:
                print(f"epoch {chunk['epoch']}: loss {chunk['loss']}")

        async with pool.map("double", ({"n": n} for n in range(1000))) as results:
            print("a thousand calls:", sum([result async for result in results]))

        try:
            await pool.execute("stubborn", {"seconds": 60}, timeout=0.2)
        except snakepit.CallTimeout as error:
            print("too slow:", error)

        try:
            await pool.execute("double", {"n": "many"})
        except snakepit.InvalidArguments as error:
            print("wrong:", error)


if __name__ == "__main__":
    trio.run(main)
