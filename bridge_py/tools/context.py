"""Contexts: how a tool learns about the call that it serves, and how it uses the state of the call's session."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

from bridge_py.host.asking import Host, HostClient, Questions, T
from bridge_py.host.cache import Caches
from bridge_py.host.host_tools import AsyncHostTools, HostTools, call_host_tool
from bridge_py.host.session_state import SessionState
from bridge_py.wire.errors import SessionError, UsageError
from bridge_py.wire.owning import own
from bridge_py.wire.progress import MOST, NO_NOTE, Amount, Reported, checked
from bridge_py.wire.trace_context import TraceContext
from bridge_py.wire.variable import AccessRules, Variable

_logger = logging.getLogger("snakepit.tool")
_NOTHING: Final[Mapping[str, Any]] = {}
_BLOCKED: Final = "a coroutine must not block: annotate its parameter with bridge_py.AsyncSessionContext, and await"


class StateHost(Host, Protocol):
    """A host, with the caches of its sessions' variables and the adapter's options for variables."""

    caches: Caches
    cache_ttl: float
    strict: bool
    worker_number: int | None

    def clock(self) -> float:
        """Read the clock of the deadlines, in seconds; normally `time.monotonic`."""
        ...

    def report(self, context: CallContext) -> None:
        """Send the latest report of a call, now and from time to time until the call ends. Any thread may ask."""


_current: Final[ContextVar[CallContext | None]] = ContextVar("snakepit_context", default=None)
_workers: Final[set[int]] = set()  # the id of this process, if it is a worker


class CallContext:
    """The part about the call, which both kinds of contexts share."""

    __slots__ = (
        "_call_id",
        "_cancelled",
        "_client",
        "_host",
        "_host_tools",
        "_is_reporting",
        "_latest",
        "_session_id",
        "_state",
        "_trace",
        "deadline",
        "logger",
    )

    def __init__(
        self, call_id: int, session_id: str | None, deadline: float | None, host: StateHost | None = None
    ) -> None:
        self._call_id = call_id
        self._session_id = session_id
        #: When the call's budget ends, in seconds of `time.monotonic()`, or None.
        self.deadline = deadline
        #: A logger. The host passes its records on as its own.
        self.logger = _logger
        self._cancelled = False
        self._host = host
        self._client: HostClient | None = None
        self._host_tools: Any = None
        self._state: SessionState | None = None
        self._latest: Reported | None = None  # the progress that was reported last
        self._trace = ""  # as the link carries it
        self._is_reporting = False  # whether the host sends `_latest` from time to time

    @property
    def call_id(self) -> int:
        """Number of this call, unique in this worker process."""
        return self._call_id

    @property
    def session_id(self) -> str | None:
        """The session that the caller named, or None."""
        return self._session_id

    @property
    def correlation_id(self) -> str | None:
        """The correlation id of the call, which its caller gave it, or None. Any thread may ask."""
        found = TraceContext.read(self._trace)
        return None if found is None else found.correlation_id or None

    @property
    def worker_number(self) -> int | None:
        """Number of this worker among the workers of its pool, from 0 on; None if no pool has started it.

        The worker that replaces this one has the same number. Code without a context finds the number in the
        environment variable SNAKEPIT_WORKER_NUMBER.
        """
        return None if self._host is None else self._host.worker_number

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up. A loop that cannot be interrupted should check it."""
        return self._cancelled

    def time_left(self) -> float | None:
        """Seconds until the deadline (negative when it has passed), or None without one."""
        clock = time.monotonic if self._host is None else self._host.clock
        return None if self.deadline is None else self.deadline - clock()

    def progress(self, done: Amount, total: Amount | None = None, note: str = NO_NOTE) -> None:
        """Tell the caller how far the call has come, if the caller listens (`on_progress`), and listeners of the pool.

        `done` and `total` are amounts of anything, as numbers from 0 on; `total` is None if it is not known. `done` may
        go down, and beyond a `total` that was an estimate. `note` is a short text, of which 200 characters are sent.

        Call this as often as you like, from any thread or task of the call: it never blocks. The first report is sent
        at once, then the latest one every 50 ms, and the last one before the call's result. After the end of the call,
        and in processes that it has forked, it does nothing. Raises `UsageError` for anything that is no amount, such
        as a bool, nan or a negative number, and for a note that is no text.
        """
        # Most reports are such, and checking them here takes half of the time.
        if type(done) is int and type(total) is int and note is NO_NOTE and 0 <= done <= MOST and 0 <= total <= MOST:
            self._latest = done, total, note
        else:
            self._latest = checked(done, total, note)
        if not self._is_reporting and self._host is not None:
            self._host.report(self)

    def clear_cache(self) -> None:
        """Forget all remembered variables of the session."""
        self._session.cache.forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} call={self.call_id} session={self.session_id!r} cancelled={self._cancelled}>"

    @property
    def _session(self) -> SessionState:
        if self._state is None:
            host, session_id = self._host, self._session_id
            if session_id is None or host is None:
                raise SessionError("this call has no session: make it through pool.session(), or name one")
            self._state = SessionState(host.caches.of(session_id), host.cache_ttl, host.strict)
        return self._state

    @property
    def _questions(self) -> HostClient:
        if self._client is None:
            if self._host is None:
                raise SessionError(
                    "this call has no host, because no pool runs it: make it by Pool.run or Pool.execute"
                )
            self._client = HostClient(self._host, self._call_id, self._session_id or "")
        return self._client

    def _give_up(self) -> None:
        """End the call's waiting for the host, because the call is cancelled. Any thread may call this."""
        if self._client is not None:
            self._client.close()


class SessionContext(CallContext):
    """The call that a sync tool serves, and the state of its session. A tool gets it by annotating a parameter with it.

    Methods about the call are safe in any tool and any thread. Methods about the session block until the host has
    answered. A coroutine must not block, so it takes `AsyncSessionContext`. Reading a remembered variable does not ask
    the host: the host tells workers when a variable changes, and after `BaseAdapter.cache_ttl` seconds the worker asks
    again. Variables are found by name or id. They belong to the call's session, whatever the worker claims.

    Methods about the session raise `SessionError` in a call without a session, and `SessionNotFound` when the session
    has ended. Every method that asks the host raises `ToolCancelled` when the call is stopped meanwhile.

    Host tools are functions that the application has exposed, to this session or to all calls. A host tool ends before
    the call that uses it, however the call ends.
    """

    __slots__ = ()

    def __getitem__(self, identifier: str) -> Any:
        """Return the value of a variable. Raises `VariableNotFound`, which is a `LookupError`."""
        return self.get_variable_value(identifier)

    def __setitem__(self, identifier: str, value: Any) -> None:
        """Set a value. A missing variable is added, with the type of its value, unless `BaseAdapter.strict` is True."""
        self._block(self._session.assign(identifier, value))

    def __delitem__(self, identifier: str) -> None:
        self.delete_variable(identifier)

    def __contains__(self, identifier: str) -> bool:
        return self.has_variable(identifier)

    def register_variable(
        self,
        name: str,
        type: str | None = None,
        value: Any = None,
        *,
        constraints: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
        access_rules: AccessRules | None = None,
    ) -> Variable:
        """Add a variable. Without a type it gets the type of its value.

        Raises `VariableExists`, `InvalidValue`, `QuotaExceeded` and `EncodeError`.
        """
        return self._block(self._session.register_variable(name, type, value, constraints, metadata, access_rules))

    def get_variable(self, identifier: str, *, bypass_cache: bool = False) -> Variable:
        """Return a variable with value, version, type and so on. Raises `VariableNotFound`.

        `bypass_cache` asks the host, even if the variable is remembered.
        """
        state = self._session
        if not bypass_cache and (found := state.cached(identifier)) is not None:
            return found.detached()
        return self._block(state.get_variable(identifier, True))

    def get_variable_value(self, identifier: str, *, bypass_cache: bool = False) -> Any:
        """Return the value of a variable. Raises `VariableNotFound`."""
        if not bypass_cache and (found := self._session.cached(identifier)) is not None:
            return own(found.value)
        return self.get_variable(identifier, bypass_cache=True).value

    def get_variables(
        self, identifiers: Iterable[str], *, bypass_cache: bool = False
    ) -> tuple[dict[str, Variable], list[str]]:
        """Return the existing variables, by the identifiers asked for, and the missing ones. At most one round trip."""
        return self._block(self._session.get_variables(identifiers, bypass_cache))

    def has_variable(self, identifier: str) -> bool:
        """Whether there is such a variable. `identifier in context` says the same."""
        return self._block(self._session.has_variable(identifier))

    def list_variables(self, pattern: str = "*") -> list[Variable]:
        """Return the variables whose names match a pattern of `*`, `?` and `[...]`, in the order of their creation."""
        return self._block(self._session.ask("list_variables", pattern))

    def update_variable(
        self,
        identifier: str,
        value: Any,
        *,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = _NOTHING,
    ) -> Variable:
        """Set a value; the version goes up by one. When this returns, the host has the value.

        Raises `VariableNotFound`, `InvalidValue`, `AccessDenied`, `QuotaExceeded`, `EncodeError`, and
        `VersionConflict` if the version is not the expected one.
        """
        return self._block(self._session.update_variable(identifier, value, expected_version, metadata))

    def update_variables(
        self, updates: Mapping[str, Any], *, atomic: bool = False, metadata: Mapping[str, str] = _NOTHING
    ) -> dict[str, Variable | Exception]:
        """Set several values in one round trip. Returns by name the outcome: the variable, or the error.

        With `atomic` all values are set, or none. If none is set, the outcome has only the errors.
        """
        return self._block(self._session.update_variables(updates, atomic, metadata))

    def delete_variable(self, identifier: str) -> None:
        """Remove a variable. Raises `VariableNotFound` and `AccessDenied`."""
        self._block(self._session.ask("delete_variable", identifier))

    def store_program(self, program_id: str, program: Any) -> None:
        """Keep a program, which is any value that can be sent. Raises `QuotaExceeded` and `EncodeError`."""
        self._block(self._session.ask("store_program", program_id, program))

    def get_program(self, program_id: str) -> Any:
        """Return a program. Raises `ProgramNotFound`."""
        return self._block(self._session.ask("get_program", program_id))

    def update_program(self, program_id: str, changes: Mapping[str, Any]) -> Any:
        """Set some fields of a program that is a dict, and return it. Raises `ProgramNotFound` and `SessionError`."""
        return self._block(self._session.ask("update_program", program_id, dict(changes)))

    def delete_program(self, program_id: str) -> None:
        """Remove a program. Raises `ProgramNotFound`."""
        self._block(self._session.ask("delete_program", program_id))

    def call_host_tool(self, name: str, /, **arguments: Any) -> Any:
        """Call a function of the host, and return its result.

        Raises `HostToolError` if the function raised (`type` and `message` describe its exception), `WrongCallKind` if
        it is a stream, and `InvalidArguments`, `UnknownTool` and `EncodeError`.
        """
        return self._questions.block(call_host_tool(name, arguments))

    def stream_host_tool(self, name: str, /, **arguments: Any) -> Generator[Any, None, None]:
        """Call a generator of the host, and yield its items as they come.

        The host is at most 64 items ahead; an item counts once for each 4 KiB that it has begun. Closing the returned
        generator stops the host's. Iterating it raises the same errors as `call_host_tool`.
        """
        return self._questions.stream("call_host_tool", (name, arguments))

    @property
    def host_tools(self) -> HostTools:
        """The host's functions, as a mapping by name: `context.host_tools["parse"](text=...)`.

        The host is asked for the list when it is first needed. Each function has a name, a docstring and a signature.
        """
        if self._host_tools is None:
            self._host_tools = HostTools(self._questions)
        found: HostTools = self._host_tools
        return found

    def _block(self, steps: Questions[T]) -> T:
        return self._questions.block(steps)


class BlockedContext(SessionContext):
    """The context of a coroutine that asks for a `SessionContext`: it has the call, but no access to the host."""

    __slots__ = ()

    @property
    def _session(self) -> SessionState:
        raise UsageError(_BLOCKED)

    @property
    def _questions(self) -> HostClient:
        raise UsageError(_BLOCKED)


class AsyncSessionContext(CallContext):
    """The call that a coroutine serves, and the state of its session: as `SessionContext`, but its methods are awaited.

    `await context["x"]` is the value of a variable. If an update is cancelled, it may have been done or not.
    """

    __slots__ = ()

    async def __getitem__(self, identifier: str) -> Any:
        """Return the value of a variable. Raises `VariableNotFound`, which is a `LookupError`."""
        return (await self.get_variable(identifier)).value

    async def assign(self, identifier: str, value: Any) -> Variable:
        """Set a value, as `context["x"] = value` does with a `SessionContext`; returns the variable."""
        return await self._wait(self._session.assign(identifier, value))

    async def register_variable(
        self,
        name: str,
        type: str | None = None,
        value: Any = None,
        *,
        constraints: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
        access_rules: AccessRules | None = None,
    ) -> Variable:
        """Add a variable. Without a type it gets the type of its value.

        Raises `VariableExists`, `InvalidValue`, `QuotaExceeded` and `EncodeError`.
        """
        return await self._wait(self._session.register_variable(name, type, value, constraints, metadata, access_rules))

    async def get_variable(self, identifier: str, *, bypass_cache: bool = False) -> Variable:
        """Return a variable with value, version, type and so on. Raises `VariableNotFound`.

        `bypass_cache` asks the host, even if the variable is remembered.
        """
        return await self._wait(self._session.get_variable(identifier, bypass_cache))

    async def get_variable_value(self, identifier: str, *, bypass_cache: bool = False) -> Any:
        """Return the value of a variable. Raises `VariableNotFound`."""
        return (await self.get_variable(identifier, bypass_cache=bypass_cache)).value

    async def get_variables(
        self, identifiers: Iterable[str], *, bypass_cache: bool = False
    ) -> tuple[dict[str, Variable], list[str]]:
        """Return the existing variables, by the identifiers asked for, and the missing ones. At most one round trip."""
        return await self._wait(self._session.get_variables(identifiers, bypass_cache))

    async def has_variable(self, identifier: str) -> bool:
        """Whether there is such a variable."""
        return await self._wait(self._session.has_variable(identifier))

    async def list_variables(self, pattern: str = "*") -> list[Variable]:
        """Return the variables whose names match a pattern of `*`, `?` and `[...]`, in the order of their creation."""
        return await self._wait(self._session.ask("list_variables", pattern))

    async def update_variable(
        self,
        identifier: str,
        value: Any,
        *,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = _NOTHING,
    ) -> Variable:
        """Set a value; the version goes up by one. When this returns, the host has the value.

        Raises `VariableNotFound`, `InvalidValue`, `AccessDenied`, `QuotaExceeded`, `EncodeError`, and
        `VersionConflict` if the version is not the expected one.
        """
        return await self._wait(self._session.update_variable(identifier, value, expected_version, metadata))

    async def update_variables(
        self, updates: Mapping[str, Any], *, atomic: bool = False, metadata: Mapping[str, str] = _NOTHING
    ) -> dict[str, Variable | Exception]:
        """Set several values in one round trip. Returns by name the outcome: the variable, or the error.

        With `atomic` all values are set, or none. If none is set, the outcome has only the errors.
        """
        return await self._wait(self._session.update_variables(updates, atomic, metadata))

    async def delete_variable(self, identifier: str) -> None:
        """Remove a variable. Raises `VariableNotFound` and `AccessDenied`."""
        await self._wait(self._session.ask("delete_variable", identifier))

    async def store_program(self, program_id: str, program: Any) -> None:
        """Keep a program, which is any value that can be sent. Raises `QuotaExceeded` and `EncodeError`."""
        await self._wait(self._session.ask("store_program", program_id, program))

    async def get_program(self, program_id: str) -> Any:
        """Return a program. Raises `ProgramNotFound`."""
        return await self._wait(self._session.ask("get_program", program_id))

    async def update_program(self, program_id: str, changes: Mapping[str, Any]) -> Any:
        """Set some fields of a program that is a dict, and return it. Raises `ProgramNotFound` and `SessionError`."""
        return await self._wait(self._session.ask("update_program", program_id, dict(changes)))

    async def delete_program(self, program_id: str) -> None:
        """Remove a program. Raises `ProgramNotFound`."""
        await self._wait(self._session.ask("delete_program", program_id))

    async def call_host_tool(self, name: str, /, **arguments: Any) -> Any:
        """Call a function of the host, and wait for its result. If cancelled, the function is cancelled too.

        Raises `HostToolError` if the function raised (`type` and `message` describe its exception), `WrongCallKind` if
        it is a stream, and `InvalidArguments`, `UnknownTool` and `EncodeError`.
        """
        return await self._questions.wait(call_host_tool(name, arguments))

    def stream_host_tool(self, name: str, /, **arguments: Any) -> AsyncGenerator[Any, None]:
        """Call a generator of the host, and yield its items as they come.

        The host is at most 64 items ahead; an item counts once for each 4 KiB that it has begun. Closing the returned
        generator stops the host's. Iterating it raises the same errors as `call_host_tool`.
        """
        return self._questions.stream_async("call_host_tool", (name, arguments))

    @property
    def host_tools(self) -> AsyncHostTools:
        """The host's functions: `await context.host_tools["parse"](text=...)`. Awaiting it gives a dict by name."""
        if self._host_tools is None:
            self._host_tools = AsyncHostTools(self._questions)
        found: AsyncHostTools = self._host_tools
        return found

    async def _wait(self, steps: Questions[T]) -> T:
        return await self._questions.wait(steps)


def current_context() -> SessionContext | AsyncSessionContext:
    """Return the context of the function that `Pool.run`, `iterate` or `map` runs here: a tool has it as a parameter.

    A coroutine function gets an `AsyncSessionContext`, any other function a `SessionContext`. Take it in the function
    itself, and hand it to the threads that the function starts: a new thread has no context of its own. Where no worker
    runs the function, as in a test that calls it, this is the context of no call: it is never cancelled, it has no
    deadline and no session, and its progress goes nowhere. Raises `UsageError` in a worker, outside of functions.
    """
    found = _current.get()
    if found is not None:
        return found  # type: ignore[return-value]  # functions have contexts of these two classes
    if os.getpid() in _workers:
        raise UsageError(
            "current_context: no function of Pool.run runs here: a tool takes its context as a parameter, and a thread"
            " takes it from the function that has started the thread"
        )
    return SessionContext(0, None, None)


def enter(context: CallContext | None) -> None:
    """Make a context the current one of this thread or task; None for no context."""
    _current.set(context)


def mark_worker() -> None:
    """Note that this process is a worker."""
    _workers.add(os.getpid())
