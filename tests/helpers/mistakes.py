"""Mistakes in calls, as newcomers make them: what is done, the error, and what its message must say."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    """Tools, some of them written wrongly."""

    @tool
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @tool
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    def forgotten(self) -> int:
        return 1

    @tool
    def gives_object(self) -> Any:
        return object()

    @tool
    def gives_generator(self) -> Any:
        return (each for each in range(3))

    @tool
    def gives_coroutine(self) -> Any:
        found = self.later()
        found.close()
        return found

    async def later(self) -> int:
        return 1

    @tool
    def asks(self) -> str:
        return input("name? ")

    @tool
    def calls_host(self, context: SessionContext) -> Any:
        return context.call_host_tool("price")

    @tool
    def reads(self, name: Any, context: SessionContext) -> Any:
        return context[name]

    @tool
    def reads_all(self, names: Any, context: SessionContext) -> Any:
        return context.get_variables(names)


class Thing:
    """An object that cannot be sent."""


def double(n: int) -> int:
    return 2 * n


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


async def double_later(n: int) -> int:
    return 2 * n


@attrs.frozen
class Mistake:
    """`said` and `remedy` are texts that the message has: the cause, and what to do."""

    error: type[BaseException]
    said: str
    remedy: str
    make: Callable[[Any], Awaitable[object]]


async def _in_for(block: Any) -> None:
    async for _ in block:
        raise AssertionError


async def _in_with(block: Any) -> None:
    with block:
        raise AssertionError


async def _await(block: Any) -> None:
    await block


async def _collect(block: Any) -> list[Any]:
    async with block as found:
        return [each async for each in found]


async def _in_plain_for(block: Any) -> None:
    async with block as found:
        list(found)


async def _close(pool: Any) -> None:
    pool.close()


async def _expose_lambda(pool: Any) -> None:
    pool.expose(lambda: 1)


async def _ended(pool: Any) -> None:
    async with pool.session() as session:
        pass
    await session.execute("add", {"a": 1})


async def _of_another(pool: Any) -> None:
    async with snakepit.open_pool(Tools, workers=1) as other, other.session() as session:
        await pool.execute("add", {"a": 1}, session=session)


def _in_session(use: Callable[[Any], Awaitable[object]]) -> Callable[[Any], Awaitable[object]]:
    async def call(pool: Any) -> None:
        async with pool.session() as session:
            await session.register_variable("size", "integer", 1)
            await use(session)

    return call


async def _from_a_thread(pool: Any) -> None:
    await trio.to_thread.run_sync(lambda: trio.run(pool.execute, "add", {"a": 1}))


async def _from_asyncio(pool: Any) -> None:
    def call() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(pool.execute("add", {"a": 1}))

    await trio.to_thread.run_sync(call)


async def _after_close(_: Any) -> None:
    async with snakepit.open_pool(Tools, workers=1) as pool:
        pass
    await pool.execute("add", {"a": 1})


_Usage = snakepit.UsageError
_Arguments = snakepit.InvalidArguments
_Value = snakepit.InvalidValue

MISTAKES: dict[str, Mistake] = {
    # Blocks.
    "async for without async with": Mistake(
        _Usage, "this is a block, which must be entered", "write `async with pool.stream(...) as chunks:`",
        lambda pool: _in_for(pool.stream("count", {"n": 2})),
    ),
    "await a map": Mistake(
        _Usage, "this is a block, which must be entered", "write `async with pool.map(...) as results:`",
        lambda pool: _await(pool.map(double, [1])),
    ),
    "with in place of async with": Mistake(
        _Usage, "this is a block, which must be entered", "write `async with pool.session(...) as session:`",
        lambda pool: _in_with(pool.session()),
    ),
    "a session that was not entered": Mistake(
        _Usage, "before the block is entered", "write `async with pool.session(...) as session:`",
        lambda pool: pool.session().execute("add", {"a": 1}),
    ),
    "for in place of async for": Mistake(
        _Usage, "Chunks come one by one", "write `async for`",
        lambda pool: _in_plain_for(pool.stream("count", {"n": 2})),
    ),
    "for over the results of a map": Mistake(
        _Usage, "Results come one by one", "write `async for`", lambda pool: _in_plain_for(pool.map(double, [1]))
    ),
    # Names of tools.
    "a misspelt tool": Mistake(
        snakepit.UnknownTool, "no tool 'ad'", "did you mean 'add'", lambda pool: pool.execute("ad", {"a": 1})
    ),
    "a method without @tool": Mistake(
        snakepit.UnknownTool, "Tools.forgotten is there, but not marked", "add @tool above it",
        lambda pool: pool.execute("forgotten"),
    ),
    "a function in place of a tool": Mistake(
        _Usage, "is a function, and no tool", "call it with run or iterate, or mark a method with @tool",
        lambda pool: pool.execute(double, {"n": 1}),
    ),
    "a tool in place of a function": Mistake(
        _Usage, "'add' is no function", "a tool is called by its name with execute or stream",
        lambda pool: pool.run("add", 1),
    ),
    "a stream that is executed": Mistake(
        snakepit.WrongCallKind, "tool 'count' is a stream", "call it with pool.stream",
        lambda pool: pool.execute("count", {"n": 2}),
    ),
    "a plain tool that is streamed": Mistake(
        snakepit.WrongCallKind, "tool 'add' is no stream", "call it with pool.execute",
        lambda pool: _collect(pool.stream("add", {"a": 2})),
    ),
    "a host tool that is not exposed": Mistake(
        snakepit.UnknownTool, "no tool 'price'", "Workers call functions that the host has given to pool.expose",
        lambda pool: pool.execute("calls_host"),
    ),
    # Arguments.
    "arguments by position": Mistake(
        _Usage, "takes the arguments of a tool as one dict", "execute('add', {...})",
        lambda pool: pool.execute("add", 1, 2),
    ),
    "one argument that is no dict": Mistake(
        _Usage, "the arguments of 'add' are of type int", "give a dict by parameter name",
        lambda pool: pool.execute("add", 1),
    ),
    "arguments by keyword": Mistake(
        _Usage, "execute has no option 'a'", "an argument of the tool belongs in one dict: execute('add', {...})",
        lambda pool: pool.execute("add", a=1),
    ),
    "a misspelt argument": Mistake(
        _Arguments, "add: there is no parameter 'aa'", "there are: a, b", lambda pool: pool.execute("add", {"aa": 1})
    ),
    "an argument that is missing": Mistake(
        _Arguments, "add: the argument 'a' is missing", "'a'", lambda pool: pool.execute("add")
    ),
    "an argument of another type": Mistake(
        _Arguments, "add: the argument 'a' does not fit", "Expected `int`, got `str`",
        lambda pool: pool.execute("add", {"a": "1"}),
    ),
    "an object that cannot be sent": Mistake(
        snakepit.EncodeError, "an object of type", "register a codec for it",
        lambda pool: pool.execute("add", {"a": Thing()}),
    ),
    "a lock that cannot be sent": Mistake(
        snakepit.EncodeError, "cannot be sent", "send plain values", lambda pool: pool.run(double, threading.Lock())
    ),
    "a map over a number": Mistake(
        _Usage, "items=3", "give an iterable of arguments", lambda pool: _collect(pool.map(double, 3))
    ),
    "a map of a tool over numbers": Mistake(
        _Usage, "the arguments of 'add' are of type int", "give a dict by parameter name",
        lambda pool: _collect(pool.map("add", [1])),
    ),
    # Options.
    "a misspelt option": Mistake(
        _Usage, "execute has no option 'tiemout'", "did you mean 'timeout'?",
        lambda pool: pool.execute("add", {"a": 1}, tiemout=3),
    ),
    "a timeout with its unit": Mistake(
        _Usage, "timeout='5s'", "give seconds, or None for no limit",
        lambda pool: pool.execute("add", {"a": 1}, timeout="5s"),
    ),
    "a timedelta": Mistake(
        _Usage, "timeout=datetime.timedelta(seconds=3)", "give seconds, such as 3",
        lambda pool: pool.execute("add", {"a": 1}, timeout=dt.timedelta(seconds=3)),
    ),
    "an option of a call among a function's arguments": Mistake(
        _Usage, "double has no parameter 'timeout'", "pool.options(timeout=...).run(double, ...)",
        lambda pool: pool.run(double, 1, timeout=3),
    ),
    # Functions.
    "a lambda": Mistake(
        _Usage, "workers cannot import", "Give a function at the top of a module", lambda pool: pool.run(lambda: 1)
    ),
    "a function that was called": Mistake(
        _Usage, "6 is no function", "a tool is called by its name", lambda pool: pool.run(double(3))
    ),
    "run of a generator": Mistake(
        _Usage, "yields its results one by one", "use iterate in place of run", lambda pool: pool.run(numbers, 3)
    ),
    "iterate over a coroutine function": Mistake(
        _Usage, "is a coroutine function, which yields nothing", "use run in place of iterate",
        lambda pool: _collect(pool.iterate(double_later, 3)),
    ),
    "iterate over a number": Mistake(
        snakepit.WrongCallKind, "has returned int, which nobody can iterate over", "call it with run",
        lambda pool: _collect(pool.iterate(double, 3)),
    ),
    # Results.
    "a result that cannot be sent": Mistake(
        snakepit.EncodeError, "gave what cannot be sent", "register a codec for it",
        lambda pool: pool.execute("gives_object"),
    ),
    "a generator as a result": Mistake(
        snakepit.EncodeError, "a generator cannot be sent", "`yield from` it; else send a list",
        lambda pool: pool.execute("gives_generator"),
    ),
    "a coroutine as a result": Mistake(
        snakepit.EncodeError, "a coroutine cannot be sent", "write `async def`, and await it",
        lambda pool: pool.execute("gives_coroutine"),
    ),
    "input() in a tool": Mistake(
        snakepit.ToolError, "input() has nobody to ask", "Give the text as an argument of the call",
        lambda pool: pool.execute("asks"),
    ),
    # Sessions and variables.
    "the block of a session as a session": Mistake(
        _Usage, "is no session's id", "give what `async with pool.session() as session` gives",
        lambda pool: pool.execute("add", {"a": 1}, session=pool.session()),
    ),
    "a session that has ended": Mistake(
        snakepit.SessionNotFound, "not found", "it was never made, was deleted, or has expired", _ended
    ),
    "a session of another pool": Mistake(
        _Usage, "is of another pool", "open one with this pool's session()", _of_another
    ),
    "state without a session": Mistake(
        snakepit.SessionError, "this call has no session", "make it through pool.session()",
        lambda pool: pool.execute("reads", {"name": "size"}),
    ),
    "a variable that does not exist": Mistake(
        snakepit.VariableNotFound, "variable 'sise' not found", "there are: 'size'; register_variable adds one",
        _in_session(lambda session: session.get_variable("sise")),
    ),
    "a variable that does not exist, in a tool": Mistake(
        snakepit.VariableNotFound, "variable 'sise' not found", "there are: 'size'; register_variable adds one",
        _in_session(lambda session: session.execute("reads", {"name": "sise"})),
    ),
    "a list as a variable's name": Mistake(
        _Value, "is no name of a variable", "give a text", _in_session(lambda session: session.get_variable(["size"]))
    ),
    "a list as a variable's name, to set it": Mistake(
        _Value, "is no name of a variable", "give a text",
        _in_session(lambda session: session.update_variable(["size"], 3)),
    ),
    "a list as a variable's name, in a tool": Mistake(
        _Value, "is no name of a variable", "give a text",
        _in_session(lambda session: session.execute("reads", {"name": ["size"]})),
    ),
    "one name in place of a list": Mistake(
        _Value, "'size' is one name of a variable", "give a list of them, ['size']",
        _in_session(lambda session: session.get_variables("size")),
    ),
    "one name in place of a list, in a tool": Mistake(
        _Value, "'size' is one name of a variable", "give a list of them, ['size']",
        _in_session(lambda session: session.execute("reads_all", {"names": "size"})),
    ),
    "a type of Python for a variable": Mistake(
        _Value, "no variable type 'int'", "there are: float, integer",
        _in_session(lambda session: session.register_variable("x", "int", 3)),
    ),
    # The pool.
    "a method of another pool": Mistake(
        AttributeError, "has no attribute 'submit'", "await pool.run(function, ...)",
        lambda pool: pool.submit(math.sqrt, 4),
    ),
    "closing a pool": Mistake(
        AttributeError, "has no attribute 'close'", "the pool ends with its block",
        _close,
    ),
    "a call after the block": Mistake(
        snakepit.PoolClosed, "the pool is closed", "Call it inside of the block of its open_pool", _after_close
    ),
    "a call from another trio.run": Mistake(
        _Usage, "this pool was opened in another trio.run", "trio.from_thread.run(pool.execute, ...)", _from_a_thread
    ),
    "a call from asyncio": Mistake(
        _Usage, "snakepit-trio runs in trio, and this code does not", "call trio.run(main)", _from_asyncio
    ),
    "a host tool without a name": Mistake(
        _Usage, "a host tool cannot be called '<lambda>'", "give a name=", _expose_lambda
    ),
    "a pool without workers": Mistake(
        _Usage, "workers=0", "give a whole number of at least 1", lambda pool: pool.resize(0)
    ),
}  # fmt: skip
