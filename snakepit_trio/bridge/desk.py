"""Where the questions of one worker are answered, and where it hears of variables that have changed."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import outcome
import trio

from bridge_py.cargo import Load, Sizes, load_of
from bridge_py.wire import codec
from bridge_py.wire.errors import SessionError, SnakepitError, fault_of
from bridge_py.wire.frames import Frame, Kind
from snakepit_trio.call import Call
from snakepit_trio.freight import Freight
from snakepit_trio.state.session import Change, Session
from snakepit_trio.state.store import SessionStore

from .handlers import handle

if TYPE_CHECKING:
    from snakepit_trio.link import Link

logger = logging.getLogger("snakepit.bridge")


class Bridge:
    """What the desks of a pool share: the store, and shared memory for large answers."""

    def __init__(self, store: SessionStore, sizes: Sizes, places: int) -> None:
        self.store = store
        self.sizes = sizes
        # A place is held while an answer is copied, and never while anything else is waited for.
        self.freight = Freight(places)


class Desk:
    """That of one worker.

    A question names the call that it is asked for; which session that is, our own record of the call tells.
    """

    def __init__(self, bridge: Bridge, worker_id: str, calls: dict[int, Call]) -> None:
        self._bridge = bridge
        self._worker_id = worker_id
        self._calls = calls
        self.link: Link | None = None
        self._nursery: trio.Nursery | None = None
        self._sessions: set[str] = set()  # that the worker may remember something of

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            for session_id in self._sessions:
                self._bridge.store.hub.unsubscribe(session_id, self)

    def take(self, frame: Frame) -> None:
        """A question has come."""
        if self._nursery is None:
            return
        if self._bridge.store.may_wait:
            self._nursery.start_soon(self._answer, frame)
            return
        # A task would cost as much as the rest of the answer.
        found = _run_at_once(self._find(frame))
        if isinstance(found, outcome.Error) or not _is_large(found.value):
            self._reply(frame, found)
        else:
            self._nursery.start_soon(self._send_large, frame, found.value)

    async def _answer(self, frame: Frame) -> None:
        found = await outcome.acapture(self._find, frame)
        if isinstance(found, outcome.Value) and _is_large(found.value):
            await self._send_large(frame, found.value)
        else:
            self._reply(frame, found)

    async def _find(self, frame: Frame) -> Load:
        call_id, *arguments = codec.decode(frame.body, frame.attached)
        call = self._calls.get(call_id)
        if call is None or not call.session_id:
            raise SessionError(f"{frame.name}: " + ("the call is over" if call is None else "the call has no session"))
        await self._follow(call.session_id)
        value = await handle(self._bridge.store.of(call.session_id), call.name, frame.name, arguments)
        return load_of(value, frame.name, self._bridge.sizes)

    async def _follow(self, session_id: str) -> None:
        if session_id in self._sessions:
            return

        def note(session: Session) -> None:
            session.bind(self._worker_id)

        await self._bridge.store.update_session(session_id, note)
        self._sessions.add(session_id)
        self._bridge.store.hub.subscribe(session_id, self, lambda changes: self._tell(session_id, changes))

    def _tell(self, session_id: str, changes: Sequence[Change] | None) -> None:
        names = [change.name for change in changes or () if change.cause is None]
        if changes is None:
            self._sessions.discard(session_id)
        elif not names:
            return
        assert self.link is not None
        body = codec.encode_plain(names)
        self.link.conversation.link(Kind.INVALIDATE, Frame(Kind.INVALIDATE, session_id=session_id, body=body))
        self.link.flush()

    def _reply(self, frame: Frame, found: outcome.Maybe[Load]) -> None:
        assert self.link is not None
        if isinstance(found, outcome.Value):
            body, cargo = found.value
            self.link.conversation.result(frame.call_id, body, self.link.transfers.load(cargo))
        else:
            error = found.error
            if not isinstance(error, Exception):
                raise error
            if not isinstance(error, SnakepitError):
                logger.error("worker %s asked for %r, which failed", self._worker_id, frame.name, exc_info=error)
            self.link.conversation.error(frame.call_id, codec.encode_plain(fault_of(error)))
        self.link.flush()

    async def _send_large(self, frame: Frame, load: Load) -> None:
        cargo = load[1]
        assert cargo is not None
        try:
            if self._bridge.sizes.shared:
                await self._bridge.freight.load(cargo)
            self._reply(frame, outcome.Value(load))
        finally:
            self._bridge.freight.unload(cargo)


def _is_large(load: Load) -> bool:
    return load[1] is not None and load[1].is_large


def _run_at_once(answering: Coroutine[Any, Any, Load]) -> outcome.Maybe[Load]:
    """Run a coroutine that does not wait."""
    try:
        answering.send(None)
    except StopIteration as stop:
        return outcome.Value(stop.value)
    except Exception as error:
        return outcome.Error(error)
    answering.close()
    raise AssertionError("a store that says that it never waits has waited")
