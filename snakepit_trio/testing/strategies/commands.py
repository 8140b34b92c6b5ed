"""Commands of a pool's clients: drawn at random, carried out, and their outcomes as values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs
import trio
from hypothesis import strategies as st

from bridge_py.wire.errors import SnakepitError
from snakepit_trio._pool.pool import Pool

from .tool_calls import Adapted, Call, calls, tools_of

_SECONDS: Final = st.floats(0.01, 10)
_CHUNKS: Final = st.integers(0, 5)


@attrs.frozen(repr=False)
class _Short:
    """Its repr is Python, and leaves out the fields that have their default value."""

    def __repr__(self) -> str:
        shown = []
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if field.default is attrs.NOTHING:
                shown.append(repr(value))
            elif value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@attrs.frozen(repr=False)
class Execute(_Short):
    """Run a tool. Times are in seconds. `timeout` None is the default timeout, `cancel_after` None is never."""

    name: str
    arguments: Mapping[str, Any]
    timeout: float | None = None
    session: str | None = None
    cancel_after: float | None = None


@attrs.frozen(repr=False)
class Stream(_Short):
    """Run a streaming tool, and leave it after `take` chunks; None is all of them. Otherwise as `Execute`."""

    name: str
    arguments: Mapping[str, Any]
    take: int | None = None
    timeout: float | None = None
    session: str | None = None
    cancel_after: float | None = None


@attrs.frozen(repr=False)
class Concurrently(_Short):
    """Do several things at the same time, and wait for all of them."""

    commands: tuple[Execute | Stream, ...]


Command = Execute | Stream | Concurrently


@attrs.frozen
class Outcome:
    """The outcome of a command.

    `result` is the result of a tool. `chunks` are the chunks of a stream, even of one that failed later. `error` is the
    error that was raised. `is_cancelled` says whether the command's own `cancel_after` ended it. `parts` are the
    outcomes of commands that were carried out concurrently, in the order of the commands.
    """

    result: Any = None
    chunks: tuple[Any, ...] = ()
    error: SnakepitError | None = None
    is_cancelled: bool = False
    parts: tuple[Outcome, ...] = ()


def commands(
    adapter: Adapted,
    *,
    calls: st.SearchStrategy[Call] | None = None,
    timeouts: st.SearchStrategy[float] | None = _SECONDS,
    cancels: st.SearchStrategy[float] | None = _SECONDS,
    takes: st.SearchStrategy[int] | None = _CHUNKS,
    sessions: Collection[str] = ("a", "b"),
    concurrent: int = 4,
    max_size: int = 8,
) -> st.SearchStrategy[list[Command]]:
    """Lists of commands for a client of a pool: calls of an adapter's tools, one after the other or several at a time.

    `calls` gives the calls, by default the strategy of that name does. Some calls have a timeout, some are cancelled,
    some streams are left early, and some calls belong to one of the `sessions`. None, or no sessions, switches that
    off. At most `concurrent` calls are made at a time. A stream that never ends needs a timeout. Without one it runs
    until the pool's default timeout.
    """
    drawn = _calls(adapter) if calls is None else calls
    streaming = frozenset(name for name, tool in tools_of(adapter).items() if tool.streaming)
    options = {
        "timeout": _maybe(timeouts),
        "session": _maybe(st.sampled_from(sorted(sessions)) if sessions else None),
        "cancel_after": _maybe(cancels),
    }
    one = drawn.flatmap(lambda call: _made(call, call.name in streaming, options, _maybe(takes)))
    if concurrent < 2:
        return st.lists(one, max_size=max_size)
    several = st.lists(one, min_size=2, max_size=concurrent).map(lambda found: Concurrently(tuple(found)))
    return st.lists(one | several, max_size=max_size)


_calls = calls


async def carry_out(pool: Pool, command: Command) -> Outcome:
    """Carry out one command, and return its outcome. Raises exceptions that are not snakepit's own.

    If the session of the command does not exist, it is made, and lives on.
    """
    if isinstance(command, Concurrently):
        return await _carry_out_all(pool, command.commands)
    chunks: list[Any] = []
    result = error = None
    with trio.move_on_after(float("inf") if command.cancel_after is None else command.cancel_after) as scope:
        try:
            result = await _carry_out(pool, command, chunks)
        except SnakepitError as raised:
            error = raised
    return Outcome(result, tuple(chunks), error, scope.cancelled_caught)


async def _carry_out(pool: Pool, command: Execute | Stream, chunks: list[Any]) -> Any:
    async with AsyncExitStack() as stack:
        client: Any = pool
        if command.session is not None:
            client = await stack.enter_async_context(pool.session(command.session))
        options = {} if command.timeout is None else {"timeout": command.timeout}
        if isinstance(command, Execute):
            return await client.execute(command.name, command.arguments, **options)
        found = await stack.enter_async_context(client.stream(command.name, command.arguments, **options))
        while command.take is None or len(chunks) < command.take:
            try:
                chunks.append(await anext(found))
            except StopAsyncIteration:
                break
    return None


async def _carry_out_all(pool: Pool, commands: tuple[Execute | Stream, ...]) -> Outcome:
    outcomes: dict[int, Outcome] = {}

    async def carry_out_one(place: int, command: Execute | Stream) -> None:
        outcomes[place] = await carry_out(pool, command)

    async with trio.open_nursery() as nursery:
        for place, command in enumerate(commands):
            nursery.start_soon(carry_out_one, place, command)
    return Outcome(parts=tuple(outcomes[place] for place in range(len(commands))))


def _maybe(strategy: st.SearchStrategy[Any] | None) -> st.SearchStrategy[Any]:
    return st.none() if strategy is None else st.none() | strategy


def _made(
    call: Call, is_stream: bool, options: dict[str, st.SearchStrategy[Any]], takes: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    if is_stream:
        return st.builds(Stream, st.just(call.name), st.just(call.arguments), take=takes, **options)
    return st.builds(Execute, st.just(call.name), st.just(call.arguments), **options)
