"""Calls that type checkers must refuse. A comment that is not needed is an error; nobody runs this file."""

from __future__ import annotations

import snakepit_trio as snakepit

from . import functions as f
from .functions import Order, Tools


async def wrong_arguments(pool: snakepit.Pool, session: snakepit.SessionHandle, context: snakepit.Context) -> None:
    await pool.run(f.total)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await pool.run(f.total, [1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await pool.run(f.total, [Order(1.0)], discount="x")  # type: ignore[arg-type, misc, type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await pool.run(f.total, [Order(1.0)], 0.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await pool.run(f.named, "a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await pool.run(f.fetched, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await pool.run(Tools.double, "x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await pool.run(Tools.double, 1, 2)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await pool.run(Tools.later, by=1.0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await pool.run("double")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await pool.options(timeout="5").run(f.nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pool.options(priority="high").run(f.nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.run(f.total, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await context.run(f.total, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def wrong_streams(pool: snakepit.Pool) -> None:
    pool.iterate(f.lines, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.iterate(f.priced, Order(1.0))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.iterate(Tools.count)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def wrong_items(pool: snakepit.Pool, session: snakepit.SessionHandle) -> None:
    pool.map(f.priced, [1, 2])  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.map(f.priced_later, [1, 2])  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.map(f.priced, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.map("double", [1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.map(f.priced, [], chunksize="x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.map(f.priced, [], chunks=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    session.map(f.priced, [1])  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def wrong_results(pool: snakepit.Pool) -> None:
    text: str = await pool.run(f.priced, Order(1.0))  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    async with pool.map(f.priced, [Order(1.0)]) as prices:
        async for price in prices:
            text = price  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
