"""Rules of adapters: what pools with real workers do with them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any, Final

import trio

from bridge_py.wire.errors import CallTimeout, EncodeError, InvalidArguments, SnakepitError, ToolError, UnknownTool
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._config.stdio_adapters import StdioMsgpack
from snakepit_trio._pool.pool import Pool
from snakepit_trio.errors import WorkerCrashed

from .adapters import Adapters, ExpectedCall
from .check import LeftOut, Rules, equal, raises, that

rules: Rules[Adapters] = Rules()

_NO_SUCH: Final = "no_such_tool_of_the_contract"
_AT_A_TIME: Final = 10
_TIMEOUT: Final = 0.3
#: Values that all protocols carry.
_PLAIN: Final[list[Any]] = [
    None,
    True,
    0,
    -7,
    2**40,
    1.5,
    "",
    "ünï\n\x00",
    [],
    [1, [2, "x"]],
    {},
    {"a": {"b": [None]}},
    "x" * 100_000,
]
_BYTES: Final[list[Any]] = [b"\x00\xff", b"x" * 100_000]
_OURS: Final[list[Any]] = [-(2**100), math.inf, {5: "five"}, dt.datetime(2024, 2, 29, tzinfo=dt.UTC)]


@rules
async def calls_return_what_is_expected(given: Adapters) -> None:
    """Each of the given calls returns the expected result, twice in the same worker."""
    async with given.pool() as pool:
        for call in (*given.calls, *given.calls):
            call.check(await _execute(pool, given, call), f"{call}{given.sent(call)}")
        equal(pool.get_stats().restarts, 0, "restarts")


@rules
async def many_calls_at_a_time_return_what_is_expected(given: Adapters) -> None:
    """Ten of each given call run at the same time, for two workers. Each call gets its own result."""
    async with given.pool(workers=2) as pool:
        results: list[tuple[ExpectedCall, Any]] = []

        async def run(call: ExpectedCall) -> None:
            results.append((call, await _execute(pool, given, call)))

        async with trio.open_nursery() as nursery:
            for call in given.calls * _AT_A_TIME:
                nursery.start_soon(run, call)
        for call, came in results:
            call.check(came, f"{call}, one of {len(results)} calls at a time")
        equal(pool.get_stats().restarts, 0, "restarts")


@rules
async def streams_yield_what_is_expected(given: Adapters) -> None:
    """Each given stream yields the expected chunks, in order, and ends.

    After a stream was left early, the pool serves on.
    """
    given.needs(given.streams, "streams")
    async with given.pool() as pool:
        for call in given.streams:
            async with pool.stream(call.name, call.args) as chunks:
                call.check([chunk async for chunk in chunks], f"chunks of {call}{given.sent(call)}")
        for call in given.streams:
            async with pool.stream(call.name, call.args) as chunks:
                async for _ in chunks:
                    break
        await _still_serves(pool, given, "streams were left early")


@rules
async def tools_are_described(given: Adapters) -> None:
    """If workers describe their tools, names and specs are right. Workers of our own protocol describe all tools."""
    async with given.pool() as pool:
        await _still_serves(pool, given, "the start")
        specs = _described(pool)
    for spec in specs.values():
        that(isinstance(spec, ToolSpec) and bool(spec.name), f"expected a ToolSpec with a name, but {spec!r} came")
        names = [parameter.name for parameter in spec.parameters]
        equal(sorted(set(names)), sorted(names), f"parameters of {spec.name!r}, without doubles")
    if given.adapter.protocol != "link":
        if not specs:
            raise LeftOut("its workers describe no tools, and need not")
        return
    missing = sorted({call.name for call in (*given.calls, *given.streams)} - set(specs))
    that(not missing, f"expected that the tools of the given calls are described, but {missing} are not")
    wrong = sorted({call.name for call in given.streams if not specs[call.name].streaming})
    that(not wrong, f"expected that streams are described as streaming, but {wrong} are not")


@rules
async def an_unknown_tool_is_refused(given: Adapters) -> None:
    """An unknown tool raises `UnknownTool`, or the worker's own error, which names the tool. The pool serves on."""
    async with given.pool() as pool:
        knows = given.adapter.supported_commands() is not None
        if given.adapter.protocol == "stdio" and not knows and not _described(pool):
            raise LeftOut("its workers describe no tools, and it has no supported_commands: any name may be one")
        kind = UnknownTool if knows or given.adapter.protocol == "link" else SnakepitError
        with raises(kind, "a tool that is not there", _NO_SUCH) as refused:
            await pool.execute(_NO_SUCH, {}, timeout=10)
        that(
            not isinstance(refused.error, (CallTimeout, WorkerCrashed)),
            f"a tool that is not there: expected an answer, but {refused.error!r} came",
        )
        await _still_serves(pool, given, "an unknown tool")


@rules
async def wrong_arguments_are_refused_by_name(given: Adapters) -> None:
    """A call without an argument that its tool requires is refused with an error that names the argument."""
    async with given.pool() as pool:
        found = _with_a_required_argument(given.calls, _described(pool))
        if found is None:
            raise LeftOut("no tool of the given calls is described with a parameter that is required")
        call, name = found
        args = {key: value for key, value in call.args.items() if key != name}
        kind = InvalidArguments if given.adapter.protocol == "link" else SnakepitError
        with raises(kind, f"{call.name} without {name!r}", name):
            await pool.execute(call.name, args, timeout=10)
        await _still_serves(pool, given, "a call with wrong arguments")


@rules
async def what_cannot_be_sent_is_refused(given: Adapters) -> None:
    """A value that cannot be sent raises `EncodeError`, which names the place. No worker notices."""
    if given.overrides("prepare_args") or given.overrides("validate_command"):
        raise LeftOut("its own hooks may look at arguments first")
    async with given.pool() as pool:
        with raises(EncodeError, "an argument that is a bare object", "odd"):
            await pool.execute(given.calls[0].name, {"odd": object()})
        await _still_serves(pool, given, "an argument that cannot be sent")


@rules
async def values_survive(given: Adapters) -> None:
    """Values that are given to the echo come back equal, and of the same types."""
    given.needs(given.echo, "echo")
    assert given.echo is not None
    name, parameter = given.echo
    values = _values_of(given) if given.values is None else given.values
    async with given.pool() as pool:
        for value in values:
            equal(await pool.execute(name, {parameter: value}), value, f"{name}({parameter}={value!r:.80})")


@rules
async def a_tool_that_raises_costs_no_worker(given: Adapters) -> None:
    """The error of a tool comes as `ToolError`, with its message, and the same worker serves on."""
    given.needs(given.fails, "fails")
    assert given.fails is not None
    name, args, message = given.fails
    async with given.pool() as pool:
        with raises(ToolError, f"{name}, which fails", message):
            await pool.execute(name, args)
        await _still_serves(pool, given, "a call that failed")
        equal(pool.get_stats().restarts, 0, "restarts")


@rules
async def an_endless_call_can_be_cancelled(given: Adapters) -> None:
    """An endless call raises `CallTimeout`, or ends when its caller is cancelled. Then a worker is free for a call."""
    given.needs(given.endless, "endless")
    assert given.endless is not None
    name, args = given.endless
    async with given.pool() as pool:
        with raises(CallTimeout, f"{name}, which takes for ever", name):
            await pool.execute(name, args, timeout=_TIMEOUT)
        await _still_serves(pool, given, "a call timed out")
        with trio.move_on_after(_TIMEOUT) as scope:
            await pool.execute(name, args, timeout=None)
        that(scope.cancelled_caught, f"{name}: expected that it takes for ever, but it returned")
        await _still_serves(pool, given, "a call was cancelled")


@rules
async def a_crash_is_reported_and_healed(given: Adapters) -> None:
    """A call that ends its worker raises `WorkerCrashed`, and the next call runs in another worker."""
    given.needs(given.crash, "crash")
    assert given.crash is not None
    name, args = given.crash
    async with given.pool() as pool:
        with raises(WorkerCrashed, f"{name}, which ends its worker"):
            await pool.execute(name, args)
        await _still_serves(pool, given, "a crash")
        equal(pool.get_stats().restarts, 1, "restarts")


@rules
async def many_pools_can_have_it(given: Adapters) -> None:
    """An adapter serves any number of pools, even at the same time."""
    async with given.pool() as first, given.pool() as second:
        await _still_serves(first, given, "a second pool was opened")
        await _still_serves(second, given, "a first pool was opened")


# Helpers.


async def _execute(pool: Pool, given: Adapters, call: ExpectedCall) -> Any:
    try:
        return await pool.execute(call.name, call.args)
    except SnakepitError as error:
        expected = "a result" if callable(call.expected) else f"{call.expected!r:.500}"
        raise AssertionError(f"{call}: expected {expected}, but {error!r} came{given.sent(call)}") from error


async def _still_serves(pool: Pool, given: Adapters, after: str) -> None:
    call = given.calls[0]
    call.check(await _execute(pool, given, call), f"{call}, after {after}")


def _described(pool: Pool) -> dict[str, ToolSpec]:
    return {tool.name: tool.spec for tool in pool.tools.list_tools() if tool.kind == "worker"}


def _with_a_required_argument(
    calls: Sequence[ExpectedCall], specs: dict[str, ToolSpec]
) -> tuple[ExpectedCall, str] | None:
    for call in calls:
        spec = specs.get(call.name)
        for parameter in spec.parameters if spec is not None else ():
            if parameter.required and parameter.name in call.args:
                return call, parameter.name
    return None


def _values_of(given: Adapters) -> list[Any]:
    protocol = given.adapter.protocol
    if protocol == "link":
        return [*_PLAIN, *_BYTES, *_OURS]
    return [*_PLAIN, *_BYTES] if isinstance(given.adapter, StdioMsgpack) else _PLAIN
