"""Agents call a pool's tools: an MCP server on trio, and a client that cancels, hears progress, and gets errors.

It prints:

    bake: Bake a cake. takes seconds
    bill: Sum up what items cost. takes items, tip
    the bill: {'result': 8.0}
    an error: True ToolError: tool 'bill' on worker ... raised KeyError: 'wine'
    refused: InvalidArguments: bill: the argument 'items' does not fit: expected array, got 'tea'
    a cake heard: True
    cancelled
    calls that still run: 0
"""

import time
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from mcp.client.client import Client

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool

PRICES = {"tea": 3.5, "cake": 4.0}


class Tools(BaseAdapter):
    """Tools of a shop."""

    @tool
    def bill(self, items: list[str], tip: float = 0.0) -> float:
        """Sum up what items cost.

        Args:
            items: Names of items.
            tip: How much to add.

        """
        return sum(PRICES[item] for item in items) + tip

    @tool
    def bake(self, context: SessionContext, seconds: float) -> str:
        """Bake a cake."""
        steps = round(seconds / 0.1)
        for step in range(steps):
            context.progress(step, steps, "baking")
            time.sleep(0.1)
        return "a cake"


async def talk(address: str) -> None:
    """What an agent's program does."""
    async with Client(f"{address}/mcp") as client:
        for each in (await client.list_tools()).tools:
            print(f"{each.name}: {each.description} takes {', '.join(each.input_schema['properties'])}")
        done = await client.call_tool("bill", {"items": ["tea", "cake"], "tip": 0.5})
        print("the bill:", done.structured_content)
        failed = await client.call_tool("bill", {"items": ["wine"]})
        print("an error:", failed.is_error, failed.content[0].text)
        wrong = await client.call_tool("bill", {"items": "tea"})
        print("refused:", wrong.content[0].text)

        async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ASYNC124 - the SDK awaits it
            heard.append((progress, total, message))

        heard: list = []
        print(text_of(await client.call_tool("bake", {"seconds": 0.3}, progress_callback=hear)), "heard:", bool(heard))
        with trio.move_on_after(1):
            await client.call_tool("bake", {"seconds": 60})
        print("cancelled")


def text_of(result: object) -> str:
    """The text of a result."""
    return result.content[0].text  # type: ignore[attr-defined]


async def main() -> None:
    async with snakepit.open_pool(Tools, workers=2) as pool:
        async with trio.open_nursery() as nursery:
            config, end = Config(), trio.Event()
            config.bind, config.errorlog, config.graceful_timeout = ["127.0.0.1:0"], None, 0.2
            (address,) = await nursery.start(partial(serve, pool.mcp_app(), config, shutdown_trigger=end.wait))
            await talk(address)
            end.set()
        print("calls that still run:", pool.get_stats().running)


if __name__ == "__main__":
    trio.run(main)
