"""Contexts: state that moves between this process and a pool."""

from __future__ import annotations

import pytest
import trio

import snakepit_trio as snakepit

TOOLS = "tests.helpers.state_tools:StateTools"


def test_a_context_moves_with_all_it_has() -> None:
    async def main() -> None:
        async with snakepit.Context(lambda: snakepit.open_pool(TOOLS, workers=1)) as context:
            await context.register_variable("x", value=1)
            await context.update_variable("x", 2)
            await context.register_variable("y", value=1)
            await context.add_dependency("y", on="x")
            await context.store_program("p", {"a": 1})
            history = await context.history("x")
            assert not context.is_bridged
            async with context.watch("x", "y", initial=False) as updates:
                with trio.move_on_after(60):
                    # The pool outlives the scope in which it was first needed.
                    assert await context.execute("item", {"name": "x"}) == 2
                assert context.is_bridged
                await context.execute("put_item", {"name": "x", "value": 3})
                assert [(update.name, update.value) for update in (await anext(updates), await anext(updates))] == [
                    ("x", 3),
                    ("y", 1),
                ]
                async with context.stream("values", {"name": "x"}) as chunks:
                    assert await anext(chunks) == 3
                    with pytest.raises(snakepit.SessionError, match="1 calls use this context"):
                        await context.to_local()
                await context.to_local()
                assert not context.is_bridged
                assert (await context.history("x"))[1:] == history
                assert await context.get_program("p") == {"a": 1}
                await context.update_variable("x", 4)
                assert (await anext(updates)).value == 4
            # What the worker remembers of the first time counts no more.
            assert await context.execute("item", {"name": "x"}) == 4

    trio.run(main)


def test_moving_loses_nothing_that_happens_meanwhile() -> None:
    async def main() -> None:
        async with snakepit.open_pool(workers=1) as pool, snakepit.Context(pool) as context:
            await context.register_variable("count", value=0)
            done = 0

            async def count() -> None:
                nonlocal done
                for _ in range(200):
                    found = await context.get_variable("count")
                    try:
                        await context.update_variable("count", found.value + 1, expected_version=found.version)
                        done += 1
                    except snakepit.VersionConflict:
                        pass
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(count)
                for _ in range(20):
                    await context.to_bridged()
                    await trio.lowlevel.checkpoint()
                    await context.to_local()
                    await trio.lowlevel.checkpoint()
            found = await context.get_variable("count")
            assert (found.value, found.version) == (done, done + 1)
            assert await pool.sessions.list_sessions() == []

    trio.run(main)


def test_a_context_whose_pool_cannot_open_stays_local() -> None:
    async def main() -> None:
        with pytest.raises(snakepit.WorkerStartError):
            async with snakepit.Context(lambda: snakepit.open_pool("no.such:Thing")) as context:
                await context.register_variable("x", value=1)
                try:
                    await context.execute("echo")
                finally:
                    assert not context.is_bridged
                    assert await context.get_variable_value("x") == 1

    trio.run(main)
