"""The state of a session, from inside a worker."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.host.cache import Caches
from snakepit_trio._pool.pool import Pool

TOOLS = "tests.helpers.state_tools:StateTools"
STRICT = "tests.helpers.state_tools:StrictTools"


def in_session(
    test: Callable[..., Coroutine[Any, Any, None]], adapter: str = TOOLS, **config: Any
) -> Callable[..., None]:
    """Run a test with a session of a pool of its own."""

    async def main() -> None:
        async with snakepit.open_pool(adapter, **config) as pool, pool.session() as session:
            await test(pool, session)

    return lambda: trio.run(main)


async def ask(session: snakepit.SessionHandle, method: str, *args: Any, how: str = "call", **options: Any) -> Any:
    """Call a method of the context in a worker."""
    return await session.execute(how, {"method": method, "args": args, "options": options})


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("how", ["call", "call_async"])
def test_everything_a_context_can_do(how: str, concurrency: int) -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        call = partial(ask, session, how=how)
        made = await call("register_variable", "x", "float", 1, constraints={"max": 10}, metadata={"by": "me"})
        assert (made["name"], made["value"], made["version"], made["source"]) == ("x", 1.0, 1, "worker")
        assert (await session.get_variable("x")).metadata == {"by": "me"}
        assert (await call("update_variable", "x", 2.5, expected_version=1))["version"] == 2
        assert (await call("get_variable", made["id"]))["value"] == 2.5
        assert await call("get_variable_value", "x", bypass_cache=True) == 2.5
        await call("register_variable", "values", value=[1, 2])
        assert await call("get_variables", ["x", "nobody", "values"]) == [
            {"x": await call("get_variable", "x"), "values": await call("get_variable", "values")},
            ["nobody"],
        ]
        outcome = await call("update_variables", {"x": 3, "values": [3]})
        assert {name: found["version"] for name, found in outcome.items()} == {"x": 3, "values": 2}
        assert [found["name"] for found in await call("list_variables")] == ["x", "values"]
        assert [found["name"] for found in await call("list_variables", "val*")] == ["values"]
        assert await call("has_variable", "x")
        await call("delete_variable", "x")
        assert not await call("has_variable", "x")
        assert not await session.has_variable("x")
        await call("store_program", "p", {"steps": [1, 2]})
        assert await session.get_program("p") == {"steps": [1, 2]}
        assert await call("update_program", "p", {"name": "n"}) == {"steps": [1, 2], "name": "n"}
        assert await call("get_program", "p") == {"steps": [1, 2], "name": "n"}
        await call("delete_program", "p")
        assert await session.list_programs() == []

    in_session(test, concurrency=concurrency)()


def test_as_a_mapping() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.execute("put_item", {"name": "x", "value": 5})
        assert (await session.get_variable("x")).type == "integer"
        assert await session.execute("item", {"name": "x"}) == 5
        await session.execute("put_item", {"name": "x", "value": 6})
        assert await session.execute("async_item", {"name": "x"}) == 6
        assert await session.execute("contains", {"name": "x"})
        await session.execute("delete_item", {"name": "x"})
        assert not await session.execute("contains", {"name": "x"})
        with pytest.raises(snakepit.VariableNotFound, match="variable 'x' not found"):
            await session.execute("item", {"name": "x"})

    in_session(test)()


def test_strict_adapters_set_only_what_is_registered() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        with pytest.raises(snakepit.VariableNotFound):
            await session.execute("put_item", {"name": "x", "value": 5})
        await session.register_variable("x", value=1)
        await session.execute("put_item", {"name": "x", "value": 5})
        assert await session.get_variable_value("x") == 5

    in_session(test, STRICT)()


@pytest.mark.parametrize(
    ("method", "args", "options", "error", "message"),
    [
        ("register_variable", ["x", "float", 1.0], {}, snakepit.VariableExists, "has a variable 'x' already"),
        ("register_variable", ["y", "float", "1"], {}, snakepit.InvalidValue, "cannot be a float"),
        ("register_variable", ["y", "fload", 1], {}, snakepit.InvalidValue, "no variable type 'fload'"),
        ("update_variable", ["x", 11], {}, snakepit.InvalidValue, "max=10"),
        ("update_variable", ["x", 1], {"expected_version": 7}, snakepit.VersionConflict, "is at version 1, not 7"),
        ("update_variable", ["fixed", 1], {}, snakepit.AccessDenied, "'fixed' is read-only"),
        (
            "update_variable",
            ["theirs", 1],
            {},
            snakepit.AccessDenied,
            "belongs to 'other_tool'; 'call' may not change it",
        ),
        ("delete_variable", ["nobody"], {}, snakepit.VariableNotFound, "variable 'nobody' not found"),
        ("get_program", ["p"], {}, snakepit.ProgramNotFound, "has no program 'p'"),
        ("store_program", ["q", "long " * 300], {}, snakepit.QuotaExceeded, "may hold 1000"),
    ],
)
def test_errors(method: str, args: list[Any], options: dict[str, Any], error: type[Exception], message: str) -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", "float", 1, constraints={"max": 10})
        await session.register_variable("fixed", value=1, access_rules=snakepit.AccessRules(read_only=True))
        await session.register_variable("theirs", value=1, access_rules=snakepit.AccessRules(owner="other_tool"))
        await session.register_variable("ours", value=1, access_rules=snakepit.AccessRules(owner="call"))
        with pytest.raises(error, match=message):
            await ask(session, method, *args, **options)
        assert (await ask(session, "update_variable", "ours", 2))["value"] == 2

    in_session(test, quotas=snakepit.Quotas(bytes=1000))()


def test_an_invalid_value_tells_variable_type_and_constraint() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", "integer", 1, constraints={"max": 10})
        with pytest.raises(snakepit.InvalidValue) as caught:
            await session.execute("put_item", {"name": "x", "value": 11})
        assert str(caught.value) == "variable 'x': 11 is above the maximum of integer: max=10"
        assert (caught.value.type, caught.value.constraint) == ("integer", "max")
        with pytest.raises(
            snakepit.InvalidValue, match=r"^variable 'x': 'a' \(str\) is no whole number: it cannot be an integer$"
        ):
            await session.update_variable("x", "a")

    in_session(test)()


def test_batches_with_errors() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", "integer", 1)
        await session.register_variable("y", "integer", 1)
        updates = {"x": 2, "y": "text", "z": 1}
        errors = {"y": "InvalidValue", "z": "VariableNotFound"}
        assert await session.execute("outcomes", {"updates": updates, "atomic": True}) == errors
        assert await session.get_variable_value("x") == 1
        assert await session.execute("outcomes", {"updates": updates}) == {"x": 2, **errors}
        assert await session.get_variable_value("x") == 2

    in_session(test)()


def test_calls_without_a_session() -> None:
    async def main() -> None:
        async with snakepit.open_pool(TOOLS, workers=1) as pool:
            with pytest.raises(snakepit.SessionError, match="no session: make it through pool.session"):
                await pool.execute("item", {"name": "x"})
            with pytest.raises(snakepit.SessionNotFound, match="'nobody' not found"):
                await pool.execute("item", {"name": "x"}, session="nobody")
            async with pool.session() as session:
                with pytest.raises(snakepit.ToolError, match="annotate its parameter with bridge_py.AsyncSession"):
                    await session.execute("blocking_coroutine")
            with pytest.raises(snakepit.SessionNotFound):
                await session.execute("item", {"name": "x"})

    trio.run(main)


def test_a_session_is_out_of_reach_for_the_calls_of_another() -> None:
    async def test(pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", value="mine")
        async with pool.session("other") as other:
            await other.register_variable("x", value="theirs")
            assert await session.execute("claim", {"session_id": "other"}) == "mine"
            await session.execute("keep")
            with pytest.raises(snakepit.SessionError, match="the call is over"):
                await other.execute("use_kept")

    in_session(test, workers=1)()


class WaitingStore(snakepit.MemoryStore):
    """A store that waits, as one does that is elsewhere."""

    may_wait = True

    async def read_session(self, session_id: str, read: Callable[[snakepit.Session], Any]) -> Any:
        await trio.sleep(0.001)
        return await super().read_session(session_id, read)

    async def update_session(self, session_id: str, change: Callable[[snakepit.Session], Any]) -> Any:
        await trio.sleep(0.001)
        return await super().update_session(session_id, change)


def test_a_store_may_wait() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("count", value=0)
        await session.register_variable("x", "tensor", np.arange(100_000.0))
        conflicts = []

        async def count() -> None:
            conflicts.append(await session.execute("increment_async", {"name": "count", "times": 20}))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(count)
        assert await session.get_variable_value("count") == 160
        assert sum(conflicts) > 0
        assert (await session.execute("item", {"name": "x"})).sum() == np.arange(100_000.0).sum()
        with pytest.raises(snakepit.VariableNotFound):
            await session.execute("item", {"name": "nobody"})

    in_session(test, concurrency=4, store=WaitingStore())()


def test_arrays_and_long_values_go_both_ways() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        array = np.arange(1_000_000.0)
        await session.register_variable("x", "tensor", array)
        array[0] = 7.0  # what was registered is not ours any more
        assert np.array_equal(await session.execute("item", {"name": "x"}), np.arange(1_000_000.0))
        await session.execute("put_item", {"name": "x", "value": array + 1})
        assert np.array_equal(await session.get_variable_value("x"), array + 1)
        await session.execute("put_item", {"name": "y", "value": ["text" * 1000] * 1000})
        assert await session.execute("item", {"name": "y"}) == ["text" * 1000] * 1000

    in_session(test)()


@pytest.mark.parametrize("shared_memory", [0, 1 << 31])
def test_many_large_answers_at_a_time(shared_memory: int) -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", "tensor", np.arange(200_000.0))

        async def read() -> None:
            found = await session.execute(
                "call_async", {"method": "get_variable_value", "args": ["x"], "options": {"bypass_cache": True}}
            )
            assert found.sum() == np.arange(200_000.0).sum()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read)

    in_session(test, concurrency=8, shared_memory=shared_memory)()


def test_workers_see_what_is_pushed_and_never_go_back() -> None:
    async def test(pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", "list", [0])
        seen: list[list[Any]] = []

        async def poll() -> None:
            seen.append(await session.execute("poll", {"name": "x", "seconds": 10}))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(poll)
            for number in range(300):
                await session.update_variable("x", [number])
                await trio.sleep(0.001)
            await session.delete_variable("x")
            await session.register_variable("x", "string", "end")
        for values in seen:
            assert values[-1] == "end", "long before the cache would have expired"
            assert values[:-1] == sorted(values[:-1])
            assert len(values) > 20
        # The next call finds the value in the cache, and a change before it is known to it.
        await session.update_variable("x", "new")
        assert await session.execute("item", {"name": "x"}) == "new"

    async def guarded(pool: Pool, session: snakepit.SessionHandle) -> None:
        with trio.fail_after(60):
            await test(pool, session)

    in_session(guarded, workers=2, concurrency=2)()


@pytest.mark.parametrize(("tool", "concurrency", "total"), [("increment", 1, 10_000), ("increment_async", 2, 2_000)])
def test_64_tasks_count_together(tool: str, concurrency: int, total: int) -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("count", "integer", 0)
        conflicts = []

        async def count(times: int) -> None:
            conflicts.append(await session.execute(tool, {"name": "count", "times": times}, timeout=120))

        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(count, total // 64 + (number < total % 64))
        found = await session.get_variable("count")
        assert (found.value, found.version) == (total, total + 1)
        assert sum(conflicts) > 0, "they were really at it together"

    in_session(test, workers=4, concurrency=concurrency)()


async def _kill_a_busy_worker(pool: Pool) -> None:
    busy: list[int] = []
    while not busy:
        await trio.sleep(random.uniform(0.05, 0.2))
        busy = [found.pid for found in pool.list_workers() if found.state == "busy" and found.pid]
    with contextlib.suppress(ProcessLookupError):  # of one that is dead already, and not yet seen to be
        os.kill(random.choice(busy), signal.SIGKILL)


def test_what_was_acknowledged_outlives_its_worker(tmp_path: Path) -> None:
    async def test(pool: Pool, session: snakepit.SessionHandle) -> None:
        names = [f"count {number}" for number in range(4)]
        for name in names:
            await session.register_variable(name, "integer", 0)

        async def count(name: str) -> None:
            while True:
                try:
                    await session.execute("acknowledged", {"name": name, "path": str(tmp_path / name)}, timeout=None)
                except snakepit.WorkerCrashed:
                    continue

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(count, name)
            for _ in range(12):
                await _kill_a_busy_worker(pool)
            while not all((tmp_path / name).exists() and (tmp_path / name).stat().st_size for name in names):
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        for name in names:
            lines = (tmp_path / name).read_text().splitlines()
            acknowledged = [int(line) for line in lines]
            assert acknowledged == sorted(set(acknowledged)), "nothing that was acknowledged was lost and done again"
            # The last one may not have been written any more.
            assert await session.get_variable_value(name) >= acknowledged[-1] > 0

    in_session(test, workers=4, taint_after=1000)()


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("tool", ["ask_for_ever", "ask_for_ever_async"])
def test_who_asks_can_be_cancelled(tool: str, concurrency: int) -> None:
    async def test(pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", value=1)
        pids = {worker.pid for worker in pool.list_workers()}
        for _ in range(30):
            with trio.move_on_after(random.uniform(0, 0.02)):
                await session.execute(tool)
        assert await session.execute("item", {"name": "x"}) == 1
        assert {worker.pid for worker in pool.list_workers()} == pids, "none had to be killed"

    in_session(test, concurrency=concurrency)()


def test_an_answer_that_was_overtaken_is_not_remembered() -> None:
    caches = Caches()
    cache = caches.of("s")
    old = snakepit.variables.create_variable("x", value=1)
    stamp = caches.stamp("s")
    caches.invalidate("s", ["x"])  # while the answer was on its way from the link to the tool
    cache.put(old, stamp)
    assert cache.get("x", 60) is None
    assert cache.get(old.id, 60) is None
    cache.put(old, caches.stamp("s"))
    assert cache.get("x", 60) is cache.get(old.id, 60) is old
    assert cache.get("x", -1) is None
    cache.put(snakepit.variables.create_variable("x", value=2), stamp)
    assert cache.get("x", 60) is old, "the older answer came later"
    for number in range(10_001):
        caches.invalidate("s", [f"other {number}"])
    assert cache.get("x", 60) is None, "which names are valid is not known any more"
    cache.put(old, caches.stamp("s"))
    assert cache.get("x", 60) is old
    caches.invalidate("s", [])
    cache.put(old, 1 << 40)
    assert cache.get("x", 60) is None, "the session has ended, whoever still holds this"
    assert caches.of("s") is not cache
    for number in range(300):
        caches.of(f"session {number}")
    caches.trim()
    assert caches.of("session 299").stamp == 0
    assert len(caches._sessions) == 256


def test_a_stream_reads_as_it_goes() -> None:
    async def test(_pool: Pool, session: snakepit.SessionHandle) -> None:
        await session.register_variable("x", "string", "a")
        seen = set()
        async with session.stream("values", {"name": "x"}) as chunks:
            async for chunk in chunks:
                seen.add(chunk)
                await session.update_variable("x", "b" if len(seen) == 1 else "end")
        assert seen >= {"a", "b"}

    in_session(test)()
