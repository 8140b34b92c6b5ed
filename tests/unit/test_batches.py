"""What a batch tool may look like, and what batches do in a pool in memory, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from bridge_py.tools.adapter import Tool
from bridge_py.wire.errors import RemoteProtocolError, UsageError
from bridge_py.wire.hellos import check_tools
from bridge_py.wire.specs import ToolSpec
from snakepit_trio import testing
from snakepit_trio.testing import InMemory


def plain(n: list[int]) -> list[int]:
    """Fine."""
    return n


def streams(n: list[int]) -> Iterator[int]:
    yield from n


def of_one(n: int) -> list[int]:
    return [n]


def optional(n: list[int], by: list[int] = []) -> list[int]:  # noqa: B006
    return n + by


def with_rest(n: list[int], **rest: list[int]) -> list[int]:
    return n or rest["n"]


def with_context(n: list[int], context: SessionContext) -> list[int]:
    return n if context else []


def takes_nothing() -> list[int]:
    return []


@pytest.mark.parametrize(
    ("function", "options", "told"),
    [
        (plain, {"batch": 0}, "batch=0 is invalid: give a whole number from 1 to 1000"),
        (plain, {"batch": 1001}, "batch=1001 is invalid"),
        (plain, {"batch": True}, "batch=True is invalid"),
        (plain, {"batch": 2.0}, "batch=2.0 is invalid"),
        (plain, {"batch": 2, "wait": -1}, "wait=-1 is invalid: give seconds from 0 to 60"),
        (plain, {"batch": 2, "wait": float("nan")}, "wait=nan is invalid"),
        (plain, {"batch": 2, "wait": "1"}, "wait='1' is invalid"),
        (plain, {"batch": 2, "wait": 61}, "wait=61 is invalid"),
        (plain, {"wait": 1.0}, "wait=1.0 is for batches: give batch= too"),
        (streams, {"batch": 2}, "is a stream, which cannot be a batch tool"),
        (of_one, {"batch": 2}, "gets a list with the argument of each caller: annotate list[int], not int"),
        (optional, {"batch": 2}, "must be one list, without a default"),
        (with_rest, {"batch": 2}, "must be one list"),
        (with_context, {"batch": 2}, "is of several callers, and has no context: leave out 'context'"),
        (takes_nothing, {"batch": 2}, "needs a parameter"),
    ],
)
def test_what_cannot_be_a_batch_tool_is_refused_with_a_remedy(function: Any, options: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Tool(function, "it", **options)
    assert told in str(caught.value)
    assert "'it'" in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "type_name"), [(list[int], "int"), (Sequence[str], "str"), (list, "Any"), (Any, "Any")]
)
def test_callers_see_the_items(hint: Any, type_name: str) -> None:
    def function(n: Any) -> Any:
        return n

    function.__annotations__["n"] = hint
    spec = Tool(function, "it", batch=3, wait=1).spec
    assert (spec.batch, spec.wait, [each.type for each in spec.parameters]) == (3, 1.0, [type_name])


@pytest.mark.parametrize("spec", [ToolSpec("x", batch=0), ToolSpec("x", batch=10**6), ToolSpec("x", wait=-1.0)])
def test_a_worker_that_names_a_wrong_batch_is_refused(spec: ToolSpec) -> None:
    with pytest.raises(RemoteProtocolError, match="batch="):
        check_tools([spec])


class Tools(BaseAdapter):
    """Batch tools on an event loop."""

    sizes: list[int] = []  # noqa: RUF012
    running = 0

    @tool(batch=3, wait=1.0)
    async def nap(self, seconds: list[float]) -> list[float]:
        """Sleep as long as the one who wants it longest."""
        Tools.sizes.append(len(seconds))
        Tools.running += 1
        try:
            await asyncio.sleep(max(seconds))
        finally:
            Tools.running -= 1
        return seconds

    @tool(batch=3)
    def at_once(self, n: list[int]) -> list[int]:
        """Whatever is there."""
        Tools.sizes.append(len(n))
        return n


@pytest.fixture(autouse=True)
def fresh() -> None:
    Tools.sizes, Tools.running = [], 0


async def _in_memory(body: Any) -> None:
    async with snakepit.open_pool(Tools, workers=1, send_ahead=0, launcher=InMemory()) as pool:
        await body(pool)


def run(body: Any) -> None:
    testing.run(lambda: _in_memory(body), seed=1, limit=300)


def test_a_batch_goes_when_it_is_full_or_when_its_time_is_over() -> None:
    times: list[float] = []

    async def body(pool: snakepit.Pool) -> None:
        async def call() -> None:
            await pool.execute("nap", {"seconds": 0.0})
            times.append(trio.current_time() - began)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)

    run(body)
    assert Tools.sizes == [3, 2]
    assert [round(each, 1) for each in times] == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_without_a_wait_the_calls_of_one_turn_run_together() -> None:
    async def body(pool: snakepit.Pool) -> None:
        async with trio.open_nursery() as nursery:
            for n in range(2):
                nursery.start_soon(pool.execute, "at_once", {"n": n})

    run(body)
    assert Tools.sizes == [2]


def test_a_batch_ends_with_its_last_caller_and_not_before() -> None:
    async def body(pool: snakepit.Pool) -> None:
        async def call(timeout: float) -> None:
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute("nap", {"seconds": 100.0}, timeout=timeout)
            running.append(Tools.running)

        running: list[int] = []
        async with trio.open_nursery() as nursery:
            for timeout in (2.0, 3.0, 4.0):
                nursery.start_soon(call, timeout)
        assert running == [1, 1, 0]

    run(body)
