"""What a store outside of this process must do for `SharedStore`: keep parts of sessions, and compare versions.

A session lies in the backend as *parts*: texts by bytes, whose meaning `parts` knows. The *version* of a session is a
number that rises with each commit. Its *birth* is a number that rises with each session, so that a new session of an
old id is told from the old one, and sessions are listed in the order of their creation.

Each method is atomic, for all hosts. None waits longer than `patience` seconds: then it raises `StoreUnavailable`, or
`OutcomeUnknown` for a commit. A session that has expired by the backend's clock is not there, for any method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, NoReturn

import msgspec

from .quotas import Quotas
from .store import StoreStats

#: Seconds. How long a host has the turn at a session, if it does not use it: it may have died.
TURN: Final = 0.5


class OutcomeUnknown(Exception):
    """The link broke after the commit was sent: it may have been made, or not. The same commit may be sent again."""


class Known(msgspec.Struct, frozen=True):
    """A session as a host knows it."""

    birth: int
    version: int


class Sizes(msgspec.Struct, frozen=True):
    """How much a session holds. `held` is what it counts for in the store: `size`, its id, and something beside.

    Sizes are in bytes.
    """

    variables: int
    programs: int
    size: int
    held: int


class NewSession(msgspec.Struct, frozen=True):
    """A session to create. `commit_id` is random: a session that has it already is this one."""

    commit_id: str
    session_id: str
    ttl: float | None
    parts: Mapping[str, bytes]
    sizes: Sizes
    quotas: Quotas  # of the store: sessions and store_bytes


class Commit(msgspec.Struct, frozen=True):
    """A change of a session: parts to write and to remove, and what the session holds afterwards.

    It holds only for the session as it is in `known`. `commit_id` is random: the backend knows the last ones of each
    session, and makes none twice.

    `asks_for_turn` says that other hosts were first many times. If they are first once more, the backend refuses the
    commits of others for `TURN` seconds, or until the host `host_id` has made one: it answers as if they came too late.
    A backend may ignore it; then a host that loses may lose for long.
    """

    commit_id: str
    session_id: str
    known: Known
    parts: Mapping[str, bytes]
    removed: Collection[str]
    sizes: Sizes
    quotas: Quotas
    host_id: str = ""
    asks_for_turn: bool = False


class Committed(msgspec.Struct, frozen=True):
    """A commit was made: the session's version after it, and the backend's time."""

    version: int
    now: float


class State(msgspec.Struct, frozen=True):
    """What a host does not know of a session yet: the parts that were written after the version `since`.

    `since` is 0 if these are all parts: the host knew nothing of the session, or knew another one of the same id.
    `keys` are the keys of all parts. They may be None if no part was removed after `since`. Times are Unix time in
    seconds.
    """

    birth: int
    version: int
    since: int
    created_at: float
    last_accessed: float
    ttl: float | None
    size: int
    parts: Mapping[str, bytes]
    keys: Collection[str] | None


#: Called with the id of a session and its new version, or None if it has ended. Called with None and None if anything
#: may have changed: after a gap in the notices.
Tell = Callable[[str | None, int | None], None]


class Backend(ABC):
    """Keeps sessions outside of this process."""

    #: Seconds. No method takes longer.
    patience: float = 30.0
    #: How often others may be first at a session, before a host asks for its turn.
    asks_after: int = 10
    #: Whether a change goes to its end once it is sent, even if the method is cancelled. If not, `SharedStore` shields
    #: the method from cancellation.
    shields_itself: bool = False

    @abstractmethod
    def running(self) -> AbstractAsyncContextManager[None]:
        """A block in which the methods may be called. Raises `StoreUnavailable` if the backend cannot be reached."""

    @abstractmethod
    def now(self) -> float:
        """The backend's time, or a good guess: Unix time in seconds. For the times of variables, not for expiry."""

    @abstractmethod
    async def create(self, new: NewSession) -> State | None:
        """Create a session, and return its state without parts; None if the id is taken.

        Expired sessions make room first. Raises `QuotaExceeded`.
        """

    @abstractmethod
    async def fetch(self, session_id: str, known: Known | None, *, use: bool) -> State | None:
        """What a host does not know yet; None if there is no such session. `use` begins the ttl anew."""

    @abstractmethod
    async def commit(self, commit: Commit) -> Committed | State | None:
        """Change a session, and begin its ttl anew.

        Returns the state since `commit.known` if the session has another version, and None if there is no such
        session. Nothing is changed then. Expired sessions make room first. Raises `QuotaExceeded`, and
        `OutcomeUnknown`.
        """

    @abstractmethod
    async def delete(self, session_id: str) -> bool:
        """Remove a session. Returns whether there was one."""

    @abstractmethod
    async def list_ids(self) -> list[str]:
        """The ids of all sessions, oldest first. No use."""

    @abstractmethod
    async def exists(self, session_id: str) -> bool:
        """Whether there is such a session. No use."""

    @abstractmethod
    async def versions(self, session_ids: Iterable[str]) -> dict[str, Known]:
        """The births and versions of those sessions that are there. No use."""

    @abstractmethod
    async def stats(self) -> StoreStats:
        """The counts of the store, without expired sessions."""

    @abstractmethod
    async def expire(self) -> list[str]:
        """Remove sessions that have expired, and return the ids of those that this call has removed.

        It need not remove all of them at once. It returns none only if none is left.
        """

    @abstractmethod
    async def put_program(self, program_id: str, data: bytes, size: int, quotas: Quotas) -> None:
        """Keep a global program, which counts for `size` bytes. Expired sessions make room first.

        Raises `QuotaExceeded`.
        """

    @abstractmethod
    async def get_program(self, program_id: str) -> bytes | None:
        """A global program."""

    @abstractmethod
    async def delete_program(self, program_id: str) -> bool:
        """Remove a global program. Returns whether there was one."""

    @abstractmethod
    async def follow(self, tell: Tell) -> NoReturn:
        """Call `tell` for each change of a session and each end, of any host, until cancelled.

        It calls `tell(None, None)` when it has begun to listen, and after each gap. A notice may come late, twice or
        never. This may raise `StoreUnavailable`, and is called again then.
        """
        raise NotImplementedError
