"""The base of stores outside of this process, which several hosts may share."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

import msgspec
import trio

from bridge_py.wire.errors import (
    SessionError,
    SessionNotFound,
    StoreCorrupt,
    StoreUnavailable,
    UsageError,
)
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.ownership import OneRun, require_trio
from snakepit_trio._util.validation import check_seconds, check_whole, is_utf8

from . import exports, parts
from .backend import Backend, Commit, Committed, NewSession, OutcomeUnknown, State
from .checks import check_new_session, check_program_id, no_program, no_session
from .copies import Copies, Copy, Draft, sizes_of
from .quotas import Quotas, quotas_of, size_of, size_of_entries
from .session import Session
from .store import _NOTHING, DEFAULT_TTL, SessionStore, StoreStats
from .watching import Hub

T = TypeVar("T")
logger = get_logger("snakepit.state")

_SENDINGS: Final = 5  # of one commit whose outcome is unknown
_FIRST_PAUSE: Final = 0.001  # seconds, at the most; doubles with each conflict
_LONGEST_PAUSE: Final = 0.02  # short: a host that has lost should not wait longer than the one that has won
_RECONNECT: Final = 1.0  # seconds


class SharedStore(SessionStore):
    """Sessions outside of this process. Use it as a block: `async with store:`.

    This host keeps copies of the sessions that it used last, and of all that somebody watches. A read asks the store
    what has changed since the copy's version. An update is tried on the copy, and the store takes it only if the
    session still has that version. Else it is tried again on the newer session: so the function that
    `update_session` gets **may be called several times**. It must depend on the session alone, and change nothing else.

    Values are kept as they would arrive at another host: a dataclass comes back as a dict.

    The hub tells of changes that other hosts make, for sessions that somebody listens to here. Several changes that
    came in short order may be told of as one, from the first state to the last one. Changes of this host are told of
    one by one. An observer of the hub hears of the sessions that this host uses.

    If the store cannot be reached, methods raise `StoreUnavailable`. A cancelled update is made as a whole, or not at
    all. Once it is sent, cancelling waits for the outcome, up to the backend's patience.

    `cache_sessions` and `cache_bytes` bound the copies that nobody watches. Every `recheck` seconds the versions of all
    watched sessions are compared, in case that a notice was lost.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        name: str,
        quotas: Quotas | None = None,
        cache_sessions: int = 1000,
        cache_bytes: int = 64 << 20,
        recheck: float = 30.0,
    ) -> None:
        check_whole("cache_sessions", cache_sessions, 0)
        check_whole("cache_bytes", cache_bytes, 0)
        check_seconds("recheck", recheck)
        self._backend = backend
        self._name = name  # as in "async with NAME as store"
        self._quotas = quotas_of(quotas)
        self._recheck = recheck
        self._hub = Hub()
        self._turns: dict[str, trio.Lock] = {}  # of the sessions that are being updated here
        self._copies = Copies(cache_sessions, cache_bytes, self._is_pinned)
        self._to_look_at: set[str] = set()
        self._may_have_missed = False
        self._cut_off: set[str] = set()  # what cannot reach the store, and has been logged
        self._news = trio.Event()
        self._block: AbstractAsyncContextManager[None] | None = None
        self._run: OneRun | None = None
        self._is_open = False

    @property
    def hub(self) -> Hub:
        return self._hub

    # Opening and closing.

    async def __aenter__(self) -> Self:
        require_trio()
        if self._block is not None:
            raise UsageError(f"this store was opened already: make another one for each `async with {self._name}`")
        self._block, self._run = self._running(), OneRun()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, trace)  # noqa: ASYNC102 - it is the block itself that ends

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with self._backend.running(), background_nursery() as nursery:
            nursery.start_soon(self._follow)
            nursery.start_soon(self._look_again_and_again)
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False

    def _check_open(self) -> None:
        require_trio()
        if not self._is_open:
            state = "not open" if self._block is None else "closed"
            raise UsageError(f"the store is {state}: use it inside of `async with {self._name} as store`")
        if self._run is not None and self._run.token is not trio.lowlevel.current_trio_token():
            self._run.refuse("store", "get_session")

    def _may_be(self, id: object) -> bool:
        """Whether there may be something of this id. Raises `UsageError` outside of the block."""
        self._check_open()
        return is_utf8(id)

    # Sessions.

    async def create_session(
        self, session_id: str | None = None, *, ttl: float | None = DEFAULT_TTL, metadata: Mapping[str, str] = _NOTHING
    ) -> str:
        self._check_open()
        check_new_session(session_id, ttl, metadata)
        return await self._create(session_id or f"session_{secrets.token_hex(8)}", ttl, metadata, None)

    async def import_session(self, exported: Mapping[str, Any], session_id: str | None = None) -> str:
        """Make a session from an export of `export_session`, as a whole. Returns its id: by default the exported one.

        Raises `SessionError` if the id is taken or this is no export, and `QuotaExceeded`.
        """
        self._check_open()
        exported_id, ttl, metadata = exports.head_of(exported)
        wanted = session_id or exported_id
        check_new_session(wanted, ttl, metadata)
        return await self._create(wanted, ttl, metadata, lambda session: exports.import_session(session, exported))

    async def _create(
        self,
        session_id: str,
        ttl: float | None,
        metadata: Mapping[str, str],
        fill: Callable[[Session], None] | None,
    ) -> str:
        now = self._backend.now()
        empty = Copy(Session(session_id, now=now, ttl=ttl, metadata=metadata, quotas=self._quotas), 0, 0)
        _, draft = empty.draft(fill, now) if fill is not None else (None, None)
        head = {parts.HEAD: parts.encode_head(parts.Head(dict(metadata)))}
        new = NewSession(
            secrets.token_hex(8),
            session_id,
            ttl,
            head if draft is None else {**head, **draft.parts},
            sizes_of(session_id, 0, 0, size_of_entries(metadata)) if draft is None else draft.sizes,
            self._quotas,
        )
        state = await self._insist(lambda: self._backend.create(new))
        if state is None:
            raise SessionError(f"there is a session {session_id!r} already: give another id, or delete that one first")
        self._absorb(session_id, msgspec.structs.replace(state, parts=new.parts))
        self._hub.begin(session_id)
        return session_id

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        return read((await self._fetch(session_id)).session)

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        """Change a session: call `change` with it, and return the result. `change` must not await.

        `change` may be called several times, because other hosts may change the session at the same time. Only the
        last call counts. If it raises, the session is as it was before, and the error is raised here. Raises
        `SessionNotFound`, `QuotaExceeded`, and `StoreUnavailable`: also if others change the session all the time.
        """
        if not self._may_be(session_id):
            raise no_session(session_id)
        async with self._turn(session_id):
            return await self._update(session_id, change)

    async def delete_session(self, session_id: str) -> bool:
        if not self._may_be(session_id):
            return False
        is_deleted = await self._remove(lambda: self._backend.delete(session_id))
        if is_deleted:
            self._end(session_id)
        return is_deleted

    async def list_sessions(self) -> list[str]:
        self._check_open()
        return await self._backend.list_ids()

    async def session_exists(self, session_id: str) -> bool:
        return self._may_be(session_id) and await self._backend.exists(session_id)

    async def get_stats(self) -> StoreStats:
        self._check_open()
        return await self._backend.stats()

    async def cleanup_expired_sessions(self) -> int:
        self._check_open()
        count = 0
        while expired := await self._insist(self._backend.expire):
            count += len(expired)
            for session_id in expired:
                self._end_here(session_id)
        return count

    async def run_reaper(self, interval: float) -> None:
        """Remove the sessions that have expired, every `interval` seconds, until cancelled.

        If the store cannot be used, it logs that, and tries again later. Raises `UsageError` outside of the block.
        """
        require_trio()
        self._check_open()
        while True:
            await trio.sleep(interval)
            try:
                await self.cleanup_expired_sessions()
            except (SessionError, UsageError) as error:
                logger.warning("expired sessions are not removed: %s", error)

    # Programs of all sessions.

    async def store_global_program(self, program_id: str, program: Any) -> None:
        self._check_open()
        check_program_id(program_id)
        data = parts.encode_value(program, program_id)
        size = size_of([program_id, program], program_id)
        await self._insist(lambda: self._backend.put_program(program_id, data, size, self._quotas))

    async def get_global_program(self, program_id: str) -> Any:
        data = await self._backend.get_program(program_id) if self._may_be(program_id) else None
        if data is None:
            raise no_program(program_id)
        return parts.decode_value(data, f"global program {program_id!r}")

    async def delete_global_program(self, program_id: str) -> None:
        if not self._may_be(program_id) or not await self._remove(lambda: self._backend.delete_program(program_id)):
            raise no_program(program_id)

    # Updating.

    @asynccontextmanager
    async def _turn(self, session_id: str) -> AsyncIterator[None]:
        """Updates of one session take turns here, so that only those of different hosts come in each other's way."""
        lock = self._turns.setdefault(session_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            # Also if cancelled before it had the lock. A lock that somebody waits for is handed over, and stays locked.
            if not lock.locked():
                self._turns.pop(session_id, None)

    async def _update(self, session_id: str, change: Callable[[Session], T]) -> T:
        copy, is_fresh = self._copies.get(session_id), False
        if copy is None:
            copy, is_fresh = await self._fetch(session_id), True
        end = trio.current_time() + self._backend.patience
        pause, lost = _FIRST_PAUSE, 0
        while trio.current_time() < end:
            known = copy.known
            tried, draft = copy.tried(change, self._backend.now())
            if draft is None:
                # Nothing is to be written. So the answer must be of a session that is there, and up to date.
                if not is_fresh:
                    copy, is_fresh = await self._fetch(session_id), True
                if copy.known == known:
                    return tried.unwrap()
                continue
            if await self._commit(copy, draft, asks_for_turn=lost >= self._backend.asks_after):
                return tried.unwrap()
            lost += 1
            if (current := self._copies.get(session_id)) is None:
                raise no_session(session_id)
            copy, is_fresh = current, True
            await trio.sleep(random.uniform(0, pause))  # noqa: S311 - lets the other hosts pass
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise StoreUnavailable(
            f"session {session_id!r} is not updated: others have changed it all the time,"
            f" for {self._backend.patience:g} s. Try again, or change it less often"
        )

    async def _commit(self, copy: Copy, draft: Draft, *, asks_for_turn: bool) -> bool:
        """Send a change. Returns False if it has not been made, because the session has changed, or has ended."""
        session_id = copy.session.id
        commit = Commit(
            *(secrets.token_hex(8), session_id, copy.known, draft.parts, draft.delta.removed, draft.sizes),
            *(self._quotas, self._hub.epochs.host_id, asks_for_turn),
        )
        answer = await self._insist(lambda: self._backend.commit(commit))
        if answer is None:
            self._gone(session_id, copy)
        elif isinstance(answer, Committed):
            self._note_made(commit, draft, answer)
            return True
        else:
            self._absorb(session_id, answer)
        return False

    def _note_made(self, commit: Commit, draft: Draft, made: Committed) -> None:
        # A read may have brought this change already, or even later ones; or the session has ended meanwhile.
        copy = self._copies.get(commit.session_id)
        if copy is not None and copy.known == commit.known:
            changes = copy.apply(draft.delta, made.version, made.now, draft.sizes.size)
            self._copies.keep(copy)
            if changes:
                self._hub.publish(commit.session_id, changes)

    async def _insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Change the store, and find out whether that was done, even if cancelled meanwhile.

        A step may be done twice without harm. Raises `StoreUnavailable`, which says so if nobody knows the outcome.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        is_shielded = not self._backend.shields_itself
        for sending in range(_SENDINGS):
            end = trio.current_time() + self._backend.patience
            with contextlib.suppress(OutcomeUnknown), trio.CancelScope(shield=is_shielded, deadline=end):
                return await step()
            await trio.sleep(min(_FIRST_PAUSE * 10**sending, _RECONNECT))
        raise StoreUnavailable(
            "the link to the store broke, and nobody knows whether the change was made: read before you try again"
        )

    async def _remove(self, step: Callable[[], Awaitable[bool]]) -> bool:
        is_unsure = False

        async def remove() -> bool:
            nonlocal is_unsure
            try:
                return await step()
            except BaseException:
                is_unsure = True  # if it is not there at the next try, this one may have removed it
                raise

        return await self._insist(remove) or is_unsure

    # Copies, and what others have changed.

    def _is_pinned(self, session_id: str) -> bool:
        return session_id in self._turns or self._hub.has_listeners(session_id)

    async def _fetch(self, session_id: str, *, use: bool = True) -> Copy:
        """The session as it is now. Raises `SessionNotFound`."""
        if not self._may_be(session_id):
            raise no_session(session_id)
        while True:
            copy = self._copies.get(session_id)
            state = await self._backend.fetch(session_id, None if copy is None else copy.known, use=use)
            if state is None:
                self._gone(session_id, copy)
                raise no_session(session_id)
            if (found := self._absorb(session_id, state)) is not None:
                return found
            if copy is not None and self._copies.get(session_id) is copy:
                self._end(session_id)  # the store has lost this session, and has an older one of the same id

    def _absorb(self, session_id: str, state: State) -> Copy | None:
        """Bring a copy up to date, and tell of the changes. Returns None if the copy that it builds on is gone."""
        copy = self._copies.get(session_id)
        try:
            if copy is not None and copy.birth < state.birth:
                self._end(session_id)
                copy = None
            if copy is None:
                if state.since:
                    return None
                copy, changes = Copy.of(session_id, state, self._quotas), []
            elif copy.birth > state.birth or copy.version < state.since:
                return None
            elif copy.version >= state.version:
                copy.session.touch(state.last_accessed)
                return copy
            else:
                changes = copy.take(state)
                self._hub.epochs.hear(session_id, copy.session.epoch, copy.session.host_id)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"session {session_id!r}: {error}") from None
        self._copies.keep(copy)
        if changes:
            self._hub.publish(session_id, changes)
        return copy

    def _gone(self, session_id: str, copy: Copy | None) -> None:
        """The session that `copy` is of is not there any more, unless the copy is of another one by now."""
        if self._copies.get(session_id) is copy:
            self._end_here(session_id)

    def _end_here(self, session_id: str) -> None:
        if session_id in self._copies or self._hub.has_listeners(session_id):
            self._end(session_id)

    def _end(self, session_id: str) -> None:
        self._copies.drop(session_id)
        self._hub.end(session_id)

    async def _follow(self) -> NoReturn:
        def hear(session_id: str | None, version: int | None) -> None:
            self._cut_off.discard("notices")
            self._hear(session_id, version)

        while True:
            try:
                await self._backend.follow(hear)
            except StoreUnavailable as error:
                self._note_cut_off("notices", error)
            except Exception:
                logger.exception("changes of other hosts come late: following the store failed")
            await trio.sleep(_RECONNECT)
            self._hear(None, None)

    def _note_cut_off(self, what: str, error: StoreUnavailable) -> None:
        """Log that the store cannot be reached, once until it can be."""
        if what not in self._cut_off:
            self._cut_off.add(what)
            logger.warning("changes of other hosts come late, until the store can be reached: %s", error)

    def _hear(self, session_id: str | None, version: int | None) -> None:
        """Take a notice. It is only a hint: what has changed is asked for."""
        if session_id is None:
            self._may_have_missed = True
            self._news.set()
            return
        copy = self._copies.get(session_id)
        is_known = copy is not None and version is not None and copy.version >= version
        if not is_known and self._hub.has_listeners(session_id):
            self._to_look_at.add(session_id)
            self._news.set()

    async def _look_again_and_again(self) -> NoReturn:
        while True:
            with trio.move_on_after(self._recheck) as waiting:
                await self._news.wait()
            self._news = trio.Event()
            try:
                if self._may_have_missed or waiting.cancelled_caught:
                    self._may_have_missed = False
                    await self._look_for_missed()
                await self._look()
                self._cut_off.discard("reading")
            except StoreUnavailable as error:
                self._note_cut_off("reading", error)
                self._may_have_missed = True
                await trio.sleep(_RECONNECT)
            except Exception:
                logger.exception("a session of the store cannot be followed")

    async def _look_for_missed(self) -> None:
        followed = self._hub.sessions()
        there = await self._backend.versions(followed) if followed else {}
        for session_id in followed:
            copy = self._copies.get(session_id)
            if copy is None or there.get(session_id) != copy.known:
                self._to_look_at.add(session_id)

    async def _look(self) -> None:
        while self._to_look_at:
            session_id = self._to_look_at.pop()
            if not self._hub.has_listeners(session_id):
                continue
            try:
                await self._fetch(session_id, use=False)
            except SessionNotFound:
                pass  # its listeners have been told of its end
            except StoreCorrupt as error:
                logger.error("session %r cannot be followed: %s", session_id, error)
