"""Calls, streams, many calls, a timeout, and an error."""

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
