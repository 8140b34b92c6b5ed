"""A backend of shared stores in memory, which several stores of one test share, and which can be made to fail."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import NoReturn

import attrs
import trio

from bridge_py.wire.errors import StoreUnavailable
from snakepit_trio.state.backend import (
    Backend,
    Commit,
    Committed,
    Known,
    NewSession,
    OutcomeUnknown,
    Sizes,
    State,
    Tell,
)
from snakepit_trio.state.quotas import Quotas, check_bytes, check_quota
from snakepit_trio.state.shared import SharedStore
from snakepit_trio.state.store import StoreStats


@attrs.define
class Kept:
    birth: int
    version: int
    created_at: float
    used: float
    ttl: float | None
    sizes: Sizes
    parts: dict[str, tuple[int, bytes]]  # with the version of each part
    removed: int = 0  # the version of the last removal
    commits: list[tuple[str, int]] = attrs.field(factory=list)

    def ended(self, now: float) -> bool:
        return self.ttl is not None and now >= self.used + self.ttl


class World:
    """What all hosts share, and what goes wrong."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.sessions: dict[str, Kept] = {}
        self.programs: dict[str, tuple[bytes, int]] = {}
        self.numbers = itertools.count(1)
        self.counts = {"created": 0, "deleted": 0, "expired": 0}
        self.tells: list[Tell] = []
        self.loses_notices = False
        self.is_away = False
        self.unknown: list[bool] = []  # for each of the next commits: whether it is done before the link breaks
        self.commits_made = 0

    def notice(self, session_id: str, version: int | None) -> None:
        if not self.loses_notices:
            for tell in self.tells:
                tell(session_id, version)

    def gap(self) -> None:
        for tell in self.tells:
            tell(None, None)

    def sweep(self) -> list[str]:
        ended = [session_id for session_id, kept in self.sessions.items() if kept.ended(self.clock())]
        for session_id in ended:
            del self.sessions[session_id]
            self.counts["expired"] += 1
            self.notice(session_id, None)
        return ended

    def held(self) -> int:
        return sum(kept.sizes.held for kept in self.sessions.values()) + sum(size for _, size in self.programs.values())


class MemoryBackend(Backend):
    """One host's way to the world. It takes a few turns for each answer, as real ones do."""

    patience = 5.0

    def __init__(self, world: World, turns: int = 2) -> None:
        self.world = world
        self.turns = turns

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def now(self) -> float:
        return self.world.clock()

    async def _go(self) -> None:
        for _ in range(self.turns):
            await trio.lowlevel.checkpoint()
        if self.world.is_away:
            raise StoreUnavailable("the world is away")

    def _find(self, session_id: str) -> Kept | None:
        self.world.sweep()
        return self.world.sessions.get(session_id)

    async def create(self, new: NewSession) -> State | None:
        await self._go()
        found = self._find(new.session_id)
        if found is None:
            check_quota(len(self.world.sessions), new.quotas.sessions, "the store", "sessions")
            check_bytes(self.world.held(), new.sizes.held, new.quotas.store_bytes, "the store")
            number, now = next(self.world.numbers), self.world.clock()
            parts = {key: (number, part) for key, part in new.parts.items()}
            found = Kept(number, number, now, now, new.ttl, new.sizes, parts, commits=[(new.commit_id, number)])
            self.world.sessions[new.session_id] = found
            self.world.counts["created"] += 1
            self.world.notice(new.session_id, number)
        elif found.commits[0][0] != new.commit_id:
            return None
        await self._go()
        return _state(found, None, {})

    async def fetch(self, session_id: str, known: Known | None, *, use: bool) -> State | None:
        await self._go()
        found = self._find(session_id)
        if found is None:
            return None
        if use:
            found.used = self.world.clock()
        state = _state(found, known)
        await self._go()
        return state

    async def commit(self, commit: Commit) -> Committed | State | None:
        await self._go()
        if self.world.unknown:
            if self.world.unknown.pop(0):
                self._commit(commit)
            raise OutcomeUnknown
        outcome = self._commit(commit)
        await self._go()
        return outcome

    def _commit(self, commit: Commit) -> Committed | State | None:
        found = self._find(commit.session_id)
        if found is None:
            return None
        found.used = self.world.clock()
        done = dict(found.commits).get(commit.commit_id)
        if done is not None:
            return Committed(done, found.used)
        if Known(found.birth, found.version) != commit.known:
            return _state(found, commit.known)
        more = commit.sizes.held - found.sizes.held
        check_bytes(self.world.held(), more, commit.quotas.store_bytes, "the store")
        number = next(self.world.numbers)
        found.version, found.sizes = number, commit.sizes
        found.parts.update({key: (number, part) for key, part in commit.parts.items()})
        for key in commit.removed:
            del found.parts[key]
            found.removed = number
        found.commits.append((commit.commit_id, number))
        self.world.commits_made += 1
        self.world.notice(commit.session_id, number)
        return Committed(number, found.used)

    async def delete(self, session_id: str) -> bool:
        await self._go()
        if self._find(session_id) is None:
            return False
        del self.world.sessions[session_id]
        self.world.counts["deleted"] += 1
        self.world.notice(session_id, None)
        return True

    async def list_ids(self) -> list[str]:
        await self._go()
        self.world.sweep()
        return list(self.world.sessions)

    async def exists(self, session_id: str) -> bool:
        await self._go()
        return self._find(session_id) is not None

    async def versions(self, session_ids: Iterable[str]) -> dict[str, Known]:
        await self._go()
        found = {session_id: self._find(session_id) for session_id in session_ids}
        return {each: Known(kept.birth, kept.version) for each, kept in found.items() if kept is not None}

    async def stats(self) -> StoreStats:
        await self._go()
        self.world.sweep()
        sizes = [kept.sizes for kept in self.world.sessions.values()]
        return StoreStats(
            sessions=len(sizes),
            variables=sum(each.variables for each in sizes),
            programs=sum(each.programs for each in sizes),
            global_programs=len(self.world.programs),
            bytes=sum(each.size for each in sizes),
            **self.world.counts,
        )

    async def expire(self) -> list[str]:
        await self._go()
        return self.world.sweep()

    async def put_program(self, program_id: str, data: bytes, size: int, quotas: Quotas) -> None:
        await self._go()
        if program_id not in self.world.programs:
            check_quota(len(self.world.programs), quotas.programs, "the store", "global programs")
        old = self.world.programs.get(program_id, (b"", 0))[1]
        self.world.sweep()
        check_bytes(self.world.held(), size - old, quotas.store_bytes, "the store")
        self.world.programs[program_id] = data, size

    async def get_program(self, program_id: str) -> bytes | None:
        await self._go()
        return self.world.programs.get(program_id, (None, 0))[0]

    async def delete_program(self, program_id: str) -> bool:
        await self._go()
        return self.world.programs.pop(program_id, None) is not None

    async def follow(self, tell: Tell) -> NoReturn:
        self.world.tells.append(tell)
        tell(None, None)
        try:
            await trio.sleep_forever()
        finally:
            self.world.tells.remove(tell)
        raise AssertionError


def _state(kept: Kept, known: Known | None, parts: dict[str, bytes] | None = None) -> State:
    since = known.version if known is not None and known.birth == kept.birth else 0
    if parts is None:
        parts = {key: part for key, (version, part) in kept.parts.items() if version > since}
    keys: Collection[str] | None = list(kept.parts) if not since or kept.removed > since else None
    return State(
        kept.birth,
        kept.version,
        since,
        kept.created_at,
        kept.used,
        kept.ttl,
        kept.sizes.size,
        parts,
        keys,
    )


@asynccontextmanager
async def host(
    world: World, *, quotas: Quotas | None = None, recheck: float = 30.0, cache_sessions: int = 1000
) -> AsyncIterator[SharedStore]:
    """One host's store."""
    async with SharedStore(
        MemoryBackend(world), name="host()", quotas=quotas, recheck=recheck, cache_sessions=cache_sessions
    ) as store:
        yield store


@asynccontextmanager
async def shared_store(
    quotas: Quotas | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[SharedStore]:
    """A store of its own world, for the contract."""
    async with host(World(clock), quotas=quotas) as store:
        yield store
