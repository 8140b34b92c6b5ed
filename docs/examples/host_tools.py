"""A worker calls functions of the application, which call the pool again.

It prints:

    the bill: eleven
    longest: cake
    no price: KeyError 'wine'
    exposed: price, names, in_words
    without the session: there is no host tool 'in_words'; there are: price, names
"""

import itertools

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, HostToolError, SessionContext, tool

PRICES = {"tea": 3, "cake": 5}


class Shop(BaseAdapter):
    @tool
    def bill(self, context: SessionContext, items: list[str]) -> str:
        """Add up what things cost. Only the host knows that."""
        prices = [context.call_host_tool("price", item=item) for item in items]
        return context.host_tools["in_words"](sum(prices))

    @tool
    def spell(self, number: int) -> str:
        """Called by a host tool, in another worker."""
        return {8: "eight", 11: "eleven"}.get(number, str(number))

    @tool
    def longest(self, context: SessionContext) -> str:
        """Take what a generator of the host yields, as far as it is wanted."""
        longest = ""
        for number, name in enumerate(context.stream_host_tool("names"), start=1):
            longest = max(longest, name, key=len)
            if number == 10:
                break
        return longest

    @tool
    def careful(self, context: SessionContext, item: str) -> str:
        """What a host tool raises can be caught."""
        try:
            return str(context.call_host_tool("price", item=item))
        except HostToolError as error:
            return f"no price: {error.type} {error.message}"


def price(item: str) -> int:
    """What a thing costs. Runs in a thread of the host."""
    return PRICES[item]


def names():
    """Names of things, over and over: as many as are wanted."""
    yield from itertools.cycle(PRICES)


async def main() -> None:
    async with snakepit.open_pool(Shop, workers=2) as pool, pool.session() as session:
        pool.expose(price)
        pool.expose(names)

        async def in_words(number: int) -> str:
            return await pool.execute("spell", {"number": number})

        session.expose(in_words)
        print("the bill:", await session.execute("bill", {"items": ["tea", "cake", "tea"]}))
        print("longest:", await session.execute("longest"))
        print(await session.execute("careful", {"item": "wine"}))
        print("exposed:", ", ".join(tool.name for tool in pool.tools.list_exposed_tools(session.id)))
        try:
            await pool.execute("bill", {"items": ["tea"]})
        except snakepit.SnakepitError as error:
            print("without the session:", error)


if __name__ == "__main__":
    trio.run(main)
