"""What type checkers know of calls, and what they refuse. Both run over this file; the tests run its `main`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, assert_type

import outcome

import snakepit_trio as snakepit

from . import functions as f
from .functions import Order, Tools


async def run_functions(pool: snakepit.Pool) -> None:
    assert_type(await pool.run(f.total, [Order(1.5)]), float)
    assert_type(await pool.run(f.total, [Order(1.5)], discount=0.5), float)
    assert_type(await pool.run(f.named, first="a"), str)
    assert_type(await pool.run(f.fetched, "a", times=2), bytes)
    assert_type(await pool.run(f.nothing), None)
    assert_type(await pool.run(math.sqrt, 4), float)
    assert_type(await pool.run(Order, 2.0), Order)
    assert_type(await pool.run(partial(f.total, discount=0.5), [Order(1.5)]), float)
    assert_type(await pool.options(timeout=5).run(f.priced, Order(1.0)), float)
    assert_type(await pool.options(retries=1).options(timeout=None).run(f.fetched, "a"), bytes)
    assert_type(await pool.options(priority=-5).run(f.nothing), None)


async def run_tools(pool: snakepit.Pool) -> None:
    assert_type(await pool.run(Tools.double, 3), int)
    assert_type(await pool.run(Tools.double, n=3), int)
    assert_type(await pool.run(Tools.later, Order(1.0), by=2.0), Order)
    assert_type(await pool.execute(Tools.double, {"n": 3}), int)
    assert_type(await pool.execute(Tools.later, {"order": Order(1.0)}, timeout=5), Order)
    assert_type(await pool.execute("double", {"n": 3}), Any)
    assert_type(await pool.execute(Tools.double, {"n": 3}, priority=5), int)
    assert_type(await pool.execute("later", {"order": Order(1.0)}, returns=Order), Order)


async def iterate(pool: snakepit.Pool) -> None:
    async with pool.iterate(f.lines, "a\nb") as lines:
        async for line in lines:
            assert_type(line, str)
    async with pool.iterate(f.ticks, to=2) as ticks:
        assert_type(await anext(ticks), float)
    async with pool.iterate(Tools.count, 2) as numbers:
        assert_type([number async for number in numbers], list[int])
    async with pool.iterate(Tools.count_later, to=2) as words:
        assert_type([word async for word in words], list[str])
    async with pool.iterate(f.listed, 2) as items:
        assert_type([item async for item in items], list[int])
    async with pool.stream(Tools.count, {"to": 2}, priority=1) as numbers:
        assert_type([number async for number in numbers], list[int])
    async with pool.stream(Tools.count_later, {"to": 2}) as words:
        assert_type([word async for word in words], list[str])
    async with pool.stream("count", {"to": 2}) as anything:
        assert_type(await anext(anything), Any)


async def map_items(pool: snakepit.Pool) -> None:
    orders = [Order(1.0), Order(2.0)]
    async with pool.map(f.priced, orders) as prices:
        assert_type([price async for price in prices], list[float])
    async with pool.map(f.priced_later, orders, limit=2, ordered=False, priority=-1) as texts:
        assert_type([text async for text in texts], list[str])
    async with pool.map(Tools.double, [1, 2]) as doubles:
        assert_type([double async for double in doubles], list[int])
    async with pool.map(f.priced, orders, pairs=True, chunksize=2) as pairs:
        async for order, price in pairs:
            assert_type(order, Order)
            assert_type(price, outcome.Value[float] | outcome.Error)
    async with pool.map(f.priced_later, orders, pairs=True) as later:
        assert_type([found.unwrap() async for _, found in later], list[str])
    async with pool.map("double", [{"n": 1}]) as anything:
        assert_type([value async for value in anything], list[Any])


async def sessions_and_contexts(pool: snakepit.Pool) -> None:
    orders = [Order(1.0)]
    async with pool.session() as session:
        assert_type(await session.run(f.total, orders), float)
        assert_type(await session.run(Tools.later, orders[0]), Order)
        assert_type(await session.execute(Tools.double, {"n": 1}, priority=1), int)
        async with session.map(f.priced_later, orders) as texts:
            assert_type([text async for text in texts], list[str])
        async with session.map(f.priced, orders, pairs=True) as pairs:
            assert_type([(order.number, found.unwrap()) async for order, found in pairs], list[tuple[int, float]])
        async with session.iterate(f.ticks, 1) as ticks:
            assert_type(await anext(ticks), float)
        async with session.stream(Tools.count, {"to": 1}) as numbers:
            assert_type(await anext(numbers), int)
    async with snakepit.Context(pool) as context:
        assert_type(await context.run(f.fetched, "a"), bytes)
        async with context.iterate(f.lines, "a") as lines:
            assert_type(await anext(lines), str)


async def main() -> None:
    async with snakepit.open_pool(Tools, initializer=f.nothing) as pool:
        await run_functions(pool)
        await run_tools(pool)
        await iterate(pool)
        await map_items(pool)
        await sessions_and_contexts(pool)
