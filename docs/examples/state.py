"""Variables of a session live on the host, and tools read and change them.

It prints:

    version after tuning: 4
    watched: temperature is 0.7, 3 updates missed
    seen by another call: {'temperature': 0.7..., 'steps': 3, 'missing': 1}
    refused: variable 'temperature': -0.0... is below the minimum of float: min=0.0
    rolled back to 1.0
    a pool is needed: False
    a pool is needed: True
"""

from __future__ import annotations

import trio

import snakepit_trio as snakepit
from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool


class Tuner(BaseAdapter):
    @tool
    def tune(self, context: SessionContext, steps: int) -> int:
        """Blocks where it asks the host."""
        for _ in range(steps):
            temperature = context.get_variable("temperature")  # asks the host once, and then only when it changed
            context.update_variable("temperature", temperature.value - 0.1, expected_version=temperature.version)
        context["steps"] = steps  # a new variable, of its value's type
        return context.get_variable("temperature").version

    @tool
    async def look(self, context: AsyncSessionContext) -> dict[str, float]:
        """Awaits."""
        found, missing = await context.get_variables(["temperature", "steps", "nothing"])
        return {**{name: variable.value for name, variable in found.items()}, "missing": len(missing)}


async def main() -> None:
    async with snakepit.open_pool(Tuner, workers=2) as pool, pool.session(ttl=3600) as session:
        await session.register_variable("temperature", "float", 1.0, constraints={"min": 0.0, "max": 2.0})
        async with session.watch("temperature") as updates:
            print("version after tuning:", await session.execute("tune", {"steps": 3}))
            update = await anext(updates)
            print(f"watched: {update.name} is {update.value:.1f}, {update.missed} updates missed")
        print("seen by another call:", await session.execute("look"))
        try:
            await session.execute("tune", {"steps": 100})
        except snakepit.InvalidValue as error:
            print("refused:", error)
        await session.rollback("temperature", version=1)
        print("rolled back to", await session.get_variable_value("temperature"))

    async with snakepit.Context(lambda: snakepit.open_pool(Tuner)) as context:
        await context.register_variable("temperature", value=2.0)
        print("a pool is needed:", context.is_bridged)
        await context.execute("tune", {"steps": 2})
        print("a pool is needed:", context.is_bridged)


if __name__ == "__main__":
    trio.run(main)
