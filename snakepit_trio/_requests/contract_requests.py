"""The requests of one worker that does not speak our link: sessions for its calls, and host tools."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

import outcome
import trio

from bridge_py.wire.errors import Fault, SessionError, SessionNotFound, error_of
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.owning import own
from snakepit_trio._calls.call import Call
from snakepit_trio.state.fences import WorkerSessions, Writer
from snakepit_trio.state.view import SessionView

from .host_tool_runs import HostToolRuns
from .services import HostServices

_MOST_HAD: Final = 1000  # sessions that are remembered
_LAST_WORDS: Final = 5.0  # seconds that the store gets to delete the sessions that were made for calls


class _Question:
    """A request for a host tool, whose outcome the worker waits for."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.found: outcome.Maybe[Any] | None = None

    def settle(self, found: outcome.Maybe[Any]) -> None:
        self.found = found
        self.over.set()


class ContractRequests:
    """The requests of one foreign worker.

    The contract identifies sessions, not calls. So each call gets a session: the caller's, or a temporary name. A
    worker may use the sessions of the calls that it runs, and no others. With `reuses_names`, a temporary name serves
    one call after another, for workers that keep something for each name that they meet.
    """

    def __init__(self, services: HostServices, worker_id: str, *, reuses_names: bool = False) -> None:
        self._services = services
        self.worker_id = worker_id
        self._writer = Writer(services.store, worker_id)
        self._had: dict[str, None] = {}  # sessions of callers that have had calls here, the latest last
        self._names: dict[int, str] = {}  # the names of sessions, by `id(call)`
        self._calls: dict[str, list[Call]] = {}  # the calls of a session, by its name
        self._made: set[str] = set()  # sessions that end with their call
        self._reuses_names = reuses_names
        self._free: list[str] = []  # temporary names that no call has
        self._promised: set[str] = set()  # sessions of calls that are made when the worker uses them
        self._asked_for: set[str] = set()  # temporary names that the worker takes for made, in each call that has them
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)
        self.host_tool_runs = HostToolRuns(services, worker_id, self)
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._nursery = None  # it is about to close, and then takes no tasks
        finally:
            self.worker_gone()
            self._calls.clear()  # so that no more sessions are made
            with trio.move_on_after(_LAST_WORDS, shield=True):
                for name in tuple(self._made):
                    await self._services.store.delete_session(name)  # noqa: ASYNC102 - shielded

    # The calls of the worker.

    def begin(self, call: Call) -> str:
        """Note that a call is being sent to the worker. Returns the name of the session that goes with it."""
        name = call.session_id or (self._free.pop() if self._free else f"call_{secrets.token_hex(8)}")
        self._names[id(call)] = name
        self._calls.setdefault(name, []).append(call)
        if name in self._asked_for:
            self._promised.add(name)
        if self._reuses_names and call.session_id:
            self._services.note_home(name, self.worker_id)
        return name

    def end(self, call: Call) -> None:
        """Note that a call is over for which no session was made: else, `finish` it."""
        self._release(call, self._take(call))

    async def finish(self, call: Call) -> None:
        """Note that a call is over, and delete the session that was made for it."""
        name = self._take(call)
        if name in self._made:
            await self._services.store.delete_session(name)
            self._made.discard(name)
        self._release(call, name)

    def _take(self, call: Call) -> str:
        name = self._names.pop(id(call))
        calls = self._calls[name]
        calls.remove(call)
        if not calls:
            del self._calls[name]
            self._promised.discard(name)
        if call.session_id:
            self._had.pop(name, None)
            self._had[name] = None
            if len(self._had) > _MOST_HAD:
                del self._had[next(iter(self._had))]
        return name

    def _release(self, call: Call, name: str) -> None:
        if self._reuses_names and not call.session_id:
            self._free.append(name)

    def has_made_session(self, call: Call) -> bool:
        """Whether a session was made for the call, which ends with it."""
        return self._names[id(call)] in self._made

    def has_calls(self, name: str) -> bool:
        """Whether the worker runs a call with this session."""
        return name in self._calls

    async def ended(self, names: Iterable[str]) -> list[str]:
        """The names of sessions that the worker needs no longer: there is none any more, or another worker has it."""
        left = self._services.has_left
        exists = self._services.store.session_exists
        return [name for name in names if left(name, self.worker_id) or not await exists(name)]

    def is_temporary(self, name: str) -> bool:
        """Whether it is a name that serves one call after another."""
        return name in self._asked_for

    async def is_alive(self, name: str) -> bool:
        """Whether there is the session of a call that the worker runs or has run. Counts as use while one runs."""
        if name in self._calls:
            if name not in self._promised:
                await self._services.store.of(name).info()
            return True
        return name in self._had and await self._services.store.session_exists(name)

    def call_of(self, name: str) -> Call:
        """The call that the worker acts for when it names this session; the latest if several calls have the session.

        Raises `SessionNotFound` if the worker runs no call with this session.
        """
        calls = self._calls.get(name)
        if not calls:
            raise SessionNotFound(f"session {name!r} not found: it is not that of a call that this worker runs")
        return calls[-1]

    # The requests of the worker.

    def promise(self, name: str) -> None:
        """Note that the session of a call is to be made as soon as the worker uses it: most calls never do.

        Raises `SessionNotFound` if the worker runs no call with this session.
        """
        call = self.call_of(name)
        self._promised.add(name)
        if self._reuses_names and not call.session_id:
            self._asked_for.add(name)

    async def keep_promise(self, name: str) -> None:
        """Make a session that was promised, if there is none. Raises `SessionError`."""
        if name in self._promised:
            await self._make(name)
            self._promised.discard(name)

    async def _make(self, name: str) -> None:
        call, store = self.call_of(name), self._services.store
        if await store.session_exists(name):
            return
        if not call.session_id:
            self._made.add(name)
        await self._create(name)
        if call.session_id:
            return
        if name not in self._calls:
            await store.delete_session(name)  # the call has ended meanwhile
        else:
            self._made.add(name)  # the call may have ended meanwhile, and another one have its name

    async def _create(self, name: str) -> None:
        store, failure = self._services.store, None
        try:
            await store.create_session(name, ttl=self._services.session_ttl)
        except SessionError as error:
            failure = error
        # Another request of the worker may have been faster.
        if failure is not None and not await store.session_exists(name):
            raise failure

    def view(self, name: str) -> SessionView:
        """The session of a call. Raises `SessionNotFound`."""
        call = self.call_of(name)
        if not call.session_id:
            return self._services.store.of(name)  # no other worker or host has it
        return self.view_of(call, lambda: id(call) not in self._names)

    def view_of(self, call: Call, is_over: Callable[[], bool]) -> SessionView:
        """The caller's session, as a call may use it until it is over."""
        return SessionView(WorkerSessions(self._writer, call, is_over), call.session_id)

    def worker_gone(self) -> None:
        """Note that the worker has ended. Its writes that are on their way to the store are refused from now on."""
        self._writer.gone()

    async def call_host_tool(self, call: Call, name: str, args: Any) -> Any:
        """Run a host tool for a call, and return its result. Cancelling stops the tool.

        Raises the error that the worker gets.
        """
        if self._nursery is None or call.abandoned:
            raise SessionError("the call is being stopped: nothing more is done for it")
        frame = Frame(Kind.CALL, next(self._numbers))
        question = self._questions[frame.call_id] = _Question()
        self.host_tool_runs.open(frame, call, name, args, self._nursery)
        try:
            await question.over.wait()
        finally:
            del self._questions[frame.call_id]
            self.host_tool_runs.cancel(frame.call_id)
        assert question.found is not None
        return question.found.unwrap()

    # The outcomes of host tools (`Replies`).

    async def encode(self, value: Any, what: str) -> Any:
        """Encode a result or a chunk as it is now. The caller must then send it or drop it.

        `what` names the value in errors. Raises `EncodeError`.
        """
        return own(value, what)

    def encode_in_thread(self, value: Any, what: str) -> Any:
        """Encode a result or a chunk as it is now, as `encode` does, but in any thread."""
        return own(value, what)

    def send(self, frame: Frame, _kind: Kind, encoded: Any) -> None:
        """Send an encoded result or chunk."""
        self._settle(frame, outcome.Value(encoded))

    def drop(self, encoded: Any) -> None:
        """Let go of an encoded value that will not be sent."""

    def has_credit(self, frame: Frame) -> bool:  # noqa: ARG002 - the name of the protocol
        """Return True: these workers ask for no streams."""
        return True

    def end_stream(self, frame: Frame) -> None:
        """Report that the stream has ended."""
        self._settle(frame, outcome.Value(None))

    def fail(self, frame: Frame, fault: Fault) -> None:
        """Report that the host tool raised an error, or was stopped."""
        self._settle(frame, outcome.Error(error_of(fault)))

    def _settle(self, frame: Frame, found: outcome.Maybe[Any]) -> None:
        if (question := self._questions.get(frame.call_id)) is not None:
            question.settle(found)
