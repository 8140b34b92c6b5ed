"""Sessions in a Redis server: what `SharedStore` asks, as calls of scripts, and their answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, TypeVar

import trio

from bridge_py.wire.errors import QuotaExceeded, StoreCorrupt, StoreUnavailable, UsageError
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio.state.backend import TURN, Backend, Commit, Committed, Known, NewSession, State, Tell
from snakepit_trio.state.quotas import Quotas, check_bytes, check_quota
from snakepit_trio.state.store import StoreStats

from .address import Address
from .failures import Refusal
from .link import Link, Unanswered

T = TypeVar("T")

_FORMAT: Final = b"1"  # of the keys
_LONGEST_TTL: Final = 1 << 50  # milliseconds: what is longer never ends
_LARGEST: Final = 512 << 20  # bytes that one field can hold
_REMEMBERED: Final = 60_000  # milliseconds: how long a server remembers a commit, beside the time of its retries
_MOST_AT_A_TIME: Final = 500  # sessions in one script
_LISTED_AT_A_TIME: Final = 5000  # ids
#: The number of a generation goes before the version of a session. So after a failover, which may have lost the last
#: commits, no session is as this host knows it, and each is fetched as a whole.
_GENERATION: Final = 1 << 48


class RedisBackend(Backend):
    """One host's way to the sessions in a Redis server."""

    def __init__(self, addresses: Sequence[Address], prefix: str, timeout: float, replicas: int) -> None:
        self.patience = timeout + 1.0  # the link ends by itself before
        self._timeout = timeout
        self._prefix = prefix
        self._window = _REMEMBERED + int(4000 * timeout)
        self._ahead = 0.0  # seconds by which the server's clock is ahead of ours
        self._tell: Tell | None = None
        self._link = Link(
            addresses,
            f"{{{prefix}}}:".encode(),
            timeout=timeout,
            replicas=replicas,
            hear=self._hear,
            on_connect=self._note_connection,
        )

    def __repr__(self) -> str:
        return f"<RedisBackend at {self._link.where}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background_nursery() as nursery:
            await nursery.start(self._link.run)
            await self._check_format()
            yield

    async def _check_format(self) -> None:
        _, there = await self._read("open", [_FORMAT], lambda answer, _: (answer[0], bytes(answer[2])))
        if there != _FORMAT:
            raise UsageError(
                f"the sessions with the prefix {self._prefix!r} at {self._link.where} have the format"
                f" {there.decode(errors='replace')!r}, and this version of snakepit-trio reads the format"
                f" {_FORMAT.decode()!r}: give another prefix, or use the version that made them"
            )

    def now(self) -> float:
        return time.time() + self._ahead

    # Sessions.

    async def create(self, new: NewSession) -> State | None:
        _check_parts(new.parts)
        quotas = new.quotas
        ttl = _milliseconds(new.ttl)
        args = [
            *(new.session_id.encode(), new.commit_id.encode(), repr(new.ttl).encode(), b"" if ttl is None else ttl),
            *_numbers(new.sizes.variables, new.sizes.programs, new.sizes.size, new.sizes.held),
            *(_bound(quotas.sessions), _bound(quotas.store_bytes)),
            *_listed(new.parts),
        ]

        def read(answer: Any, generation: int) -> State | None:
            if answer[0] == b"none":
                return None
            birth, created_at = int(answer[2]), int(answer[3]) / 1000
            version = generation * _GENERATION + 1
            return State(birth, version, 0, created_at, created_at, new.ttl, new.sizes.size, {}, None)

        return await self._change("create", args, read, quotas)

    async def fetch(self, session_id: str, known: Known | None, *, use: bool) -> State | None:
        def make_args(generation: int) -> list[bytes | int]:
            return [session_id.encode(), *_as_known(known, generation), b"1" if use else b"0"]

        return await self._read("fetch", make_args, _state_or_none)

    async def commit(self, commit: Commit) -> Committed | State | None:
        _check_parts(commit.parts)
        sizes, quotas = commit.sizes, commit.quotas

        def make_args(generation: int) -> list[bytes | int]:
            return [
                *(commit.session_id.encode(), commit.commit_id.encode(), self._window),
                *_as_known(commit.known, generation),
                *_numbers(sizes.variables, sizes.programs, sizes.size, sizes.held),
                *(
                    _bound(quotas.store_bytes),
                    commit.host_id.encode(),
                    int(1000 * TURN) if commit.asks_for_turn else b"",
                ),
                *_listed(commit.parts),
                *(key.encode() for key in commit.removed),
            ]

        def read(answer: Any, generation: int) -> Committed | State | None:
            if answer[0] == b"made":
                return Committed(generation * _GENERATION + int(answer[2]), int(answer[1]) / 1000)
            return _state_or_none(answer, generation)

        return await self._change("commit", make_args, read, quotas)

    async def delete(self, session_id: str) -> bool:
        return await self._change("delete", [session_id.encode(), _token(), self._window], _is_made)

    async def list_ids(self) -> list[str]:
        # In pieces, because an answer has a bound, and other questions wait for it.
        found: list[str] = []
        left, last, some = 1, 0, list[str]()
        while left or len(some) == _LISTED_AT_A_TIME:
            left, last, some = await self._read("list", [last, _LISTED_AT_A_TIME], _some_ids)
            found += some
        return found

    async def exists(self, session_id: str) -> bool:
        return session_id in await self.versions([session_id])

    async def versions(self, session_ids: Iterable[str]) -> dict[str, Known]:
        ids = list(session_ids)
        found: dict[str, Known] = {}
        for start in range(0, len(ids), _MOST_AT_A_TIME):
            some = ids[start : start + _MOST_AT_A_TIME]
            read = _versions_of(some)
            found.update(await self._read("versions", [each.encode() for each in some], read))
        return found

    async def stats(self) -> StoreStats:
        while True:
            left, stats = await self._read("stats", [], lambda answer, _: (int(answer[3]), _stats_of(answer)))
            if not left:
                return stats

    async def expire(self) -> list[str]:
        left, gone = 1, list[str]()
        while left and not gone:
            left, gone = await self._read("expire", [], lambda answer, _: (int(answer[3]), _texts(answer[2])))
        return gone

    # Programs of all sessions.

    async def put_program(self, program_id: str, data: bytes, size: int, quotas: Quotas) -> None:
        _check_parts({program_id: data})
        args: list[bytes | int] = [program_id.encode(), data, size, _bound(quotas.programs), _bound(quotas.store_bytes)]
        await self._change("put_program", args, _is_made, quotas)

    async def get_program(self, program_id: str) -> bytes | None:
        return await self._read("get_program", [program_id.encode()], _program_or_none)

    async def delete_program(self, program_id: str) -> bool:
        return await self._change("delete_program", [program_id.encode(), _token(), self._window], _is_made)

    # Notices.

    async def follow(self, tell: Tell) -> NoReturn:
        self._tell = tell
        try:
            await trio.sleep_forever()
        finally:
            self._tell = None

    def _note_connection(self) -> None:
        if self._tell is not None:
            self._tell(None, None)

    def _hear(self, notice: bytes) -> None:
        """Take a notice of any host. What is no notice of ours is passed over: a notice is only a hint."""
        version, _, session_id = notice.partition(b" ")
        if self._tell is None or not version.isdigit():
            return
        number = int(version)
        self._tell(
            session_id.decode(errors="replace"), self._link.generation * _GENERATION + number if number else None
        )

    # Calls.

    async def _read(
        self,
        script: str,
        args: Sequence[bytes | int] | Callable[[int], Sequence[bytes | int]],
        read: Callable[[Any, int], T],
    ) -> T:
        return await self._change(script, args, read, is_change=False)

    async def _change(
        self,
        script: str,
        args: Sequence[bytes | int] | Callable[[int], Sequence[bytes | int]],
        read: Callable[[Any, int], T],
        quotas: Quotas | None = None,
        *,
        is_change: bool = True,
    ) -> T:
        try:
            answer, generation = await self._link.call(
                script, args if callable(args) else lambda _: args, is_change=is_change
            )
        except Refusal as refusal:
            raise StoreUnavailable(f"the Redis server at {self._link.where} refuses: {refusal}") from refusal.__cause__
        except Unanswered as missing:
            unsure = ". Nobody knows whether the change was made: read before you try again"
            raise StoreUnavailable(
                f"no Redis server could be used within {self._timeout:g} seconds ({missing.problem})"
                f"{unsure if is_change and missing.sent else ''}"
            ) from None
        try:
            if quotas is not None:
                _check_quotas(answer, quotas)
            self._ahead = int(answer[1]) / 1000 - time.time()
            return read(answer, generation)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise StoreCorrupt(f"the Redis server at {self._link.where} answers what is no answer: {error}") from None


def _check_parts(parts: Any) -> None:
    for key, part in parts.items():
        if len(part) > _LARGEST:
            raise QuotaExceeded(
                f"{key[1:]!r} takes {len(part)} bytes with its history, and Redis can hold {_LARGEST} in one piece:"
                " keep large data in a file, or lower Quotas(history=...)"
            )


def _check_quotas(answer: Any, quotas: Quotas) -> None:
    kind = answer[0]
    if kind == b"sessions":
        check_quota(int(answer[2]), quotas.sessions, "the store", "sessions")
    elif kind == b"programs":
        check_quota(int(answer[2]), quotas.programs, "the store", "global programs")
    elif kind == b"bytes":
        check_bytes(int(answer[2]), int(answer[3]), quotas.store_bytes, "the store")


def _milliseconds(ttl: float | None) -> int | None:
    if ttl is None or ttl * 1000 >= _LONGEST_TTL:
        return None
    return max(1, round(ttl * 1000))


def _bound(most: int | None) -> bytes | int:
    return b"" if most is None else most


def _numbers(*numbers: int) -> list[bytes | int]:
    return list(numbers)


def _listed(parts: Any) -> list[bytes | int]:
    found: list[bytes | int] = [len(parts)]
    for key, part in parts.items():
        found += [key.encode(), part]
    return found


def _token() -> bytes:
    return secrets.token_hex(8).encode()


def _as_known(known: Known | None, generation: int) -> list[bytes | int]:
    """A birth and a version, as the server has them. Version 0 stands for nothing."""
    if known is None:
        return [0, 0]
    of, version = divmod(known.version, _GENERATION)
    return [known.birth, version if of == generation else 0]


def _state_or_none(answer: Any, generation: int) -> State | None:
    if answer[0] == b"none":
        return None
    kind, _, birth, version, since, created_at, last_accessed, ttl, size, fields, keys = answer
    if kind != b"state":
        raise ValueError(f"{kind!r} is no state")
    parts = {
        bytes(key[1:]).decode(): bytes(part)
        for key, part in zip(fields[::2], fields[1::2], strict=True)
        if key.startswith(b".")
    }
    start = generation * _GENERATION
    return State(
        birth=int(birth),
        version=start + int(version),
        since=start + int(since) if int(since) else 0,
        created_at=int(created_at) / 1000,
        last_accessed=int(last_accessed) / 1000,
        ttl=None if ttl == b"None" else float(ttl),
        size=int(size),
        parts=parts,
        keys=_keys_of(parts, keys),
    )


def _keys_of(parts: dict[str, bytes], keys: Any) -> list[str] | None:
    if keys is None:
        return None
    return _texts(keys) if isinstance(keys, list) else list(parts)  # these are all parts


def _texts(found: Sequence[bytes]) -> list[str]:
    return [bytes(each).decode() for each in found]


def _some_ids(answer: Any, _: int) -> tuple[int, int, list[str]]:
    return int(answer[3]), int(answer[4]), _texts(answer[5])


def _versions_of(ids: Sequence[str]) -> Callable[[Any, int], dict[str, Known]]:
    def read(answer: Any, generation: int) -> dict[str, Known]:
        pairs = zip(ids, answer[2], strict=True)
        return {
            each: Known(int(birth), generation * _GENERATION + int(version))
            for each, (birth, version) in pairs
            if birth is not None
        }

    return read


def _stats_of(answer: Any) -> StoreStats:
    variables, programs, size, created, deleted, expired = (int(number or 0) for number in answer[6])
    return StoreStats(
        sessions=int(answer[4]),
        variables=variables,
        programs=programs,
        global_programs=int(answer[5]),
        bytes=size,
        created=created,
        deleted=deleted,
        expired=expired,
    )


def _is_made(answer: Any, _: int) -> bool:
    return int(answer[2]) == 1


def _program_or_none(answer: Any, _: int) -> bytes | None:
    return None if answer[0] == b"none" else bytes(answer[2])
