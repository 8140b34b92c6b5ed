"""The methods for one session of a store: variables, programs, watching."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import attrs

from bridge_py.wire.errors import EncodeError
from bridge_py.wire.owning import own
from bridge_py.wire.types import check_given_constraints
from bridge_py.wire.variable import AccessRules, HistoryEntry, Optimization, Source, Variable, list_of_names
from snakepit_trio._util.blocks import block
from snakepit_trio._util.ownership import require_trio

from . import exports
from .fences import Sessions
from .provider import StateProvider
from .session import Session
from .watching import Watcher

_NOTHING: Final[Mapping[str, Any]] = {}


@attrs.frozen
class SessionInfo:
    """The facts about a session at one moment. Times are Unix time in seconds, sizes are in bytes.

    `worker_id` is the worker that serves the session, and `host_id` the host that holds it, both None if there is none.
    `epoch` is how often the session was taken over.
    """

    id: str
    ttl: float | None
    created_at: float
    last_accessed: float
    expires_at: float | None
    metadata: dict[str, str]
    variables: int
    programs: int
    bytes: int
    worker_id: str | None
    host_id: str | None = None
    epoch: int = 0

    @classmethod
    def of(cls, session: Session) -> SessionInfo:
        """The facts about a session now."""
        return cls(
            id=session.id,
            ttl=session.ttl,
            created_at=session.created_at,
            last_accessed=session.last_accessed,
            expires_at=session.expires_at(),
            metadata=dict(session.metadata),
            variables=len(session),
            programs=len(session.program_ids()),
            bytes=session.bytes,
            worker_id=session.worker_id,
            host_id=session.host_id,
            epoch=session.epoch,
        )


class SessionView(StateProvider):
    """One session of a store, by its id. Every method raises `SessionNotFound` if there is no such session.

    Variables are found by their name or their id. Returned values are copies, or immutable. `source` says where a
    change comes from. `owner` is the name under which the caller changes variables that have an owner.

    A cancelled change is made as a whole, or not at all. With a store outside of this process, methods also raise
    `StoreUnavailable` if it cannot be reached.
    """

    def __init__(self, store: Sessions, session_id: str) -> None:
        self._store = store
        self._id = session_id
        self._may_wait = getattr(store, "may_wait", True)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._id

    def _is_of(self, store: object) -> bool:
        """Whether it is a session of this store."""
        return self._store is store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id!r}>"

    def _as_now(self, value: Any) -> Any:
        """A value as it is now: a copy, if the store may look at the value later."""
        if not self._may_wait:
            return value
        try:
            return own(value)
        except EncodeError:
            return value  # the session raises the error, or takes the value as another type

    # Variables.

    async def register_variable(
        self,
        name: str,
        type: str | None = None,
        value: Any = None,
        *,
        constraints: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
        access_rules: AccessRules | None = None,
        source: Source = "host",
    ) -> Variable:
        if source == "worker":
            check_given_constraints(constraints)
        taken = self._as_now(value)
        return await self._store.update_session(
            self._id,
            lambda session: session.register(
                name,
                type,
                taken,
                constraints=constraints,
                metadata=metadata,
                access_rules=access_rules,
                source=source,
            ),
        )

    async def get_variable(self, identifier: str) -> Variable:
        return await self._store.read_session(self._id, lambda session: session.get(identifier))

    async def get_variables(self, identifiers: Iterable[str]) -> tuple[dict[str, Variable], list[str]]:
        asked = list_of_names(identifiers)
        return await self._store.read_session(self._id, lambda session: session.get_many(asked))

    async def has_variable(self, identifier: str) -> bool:
        return await self._store.read_session(self._id, lambda session: identifier in session)

    async def list_variables(self, pattern: str = "*") -> list[Variable]:
        return await self._store.read_session(self._id, lambda session: session.matching(pattern))

    async def update_variable(
        self,
        identifier: str,
        value: Any,
        *,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> Variable:
        taken = self._as_now(value)
        return await self._store.update_session(
            self._id,
            lambda session: session.update(
                identifier, taken, expected_version=expected_version, metadata=metadata, source=source, owner=owner
            ),
        )

    async def update_variables(
        self,
        updates: Mapping[str, Any],
        *,
        atomic: bool = False,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> dict[str, Variable | Exception]:
        taken = {name: self._as_now(value) for name, value in updates.items()}
        return await self._store.update_session(
            self._id,
            lambda session: session.update_many(taken, atomic=atomic, metadata=metadata, source=source, owner=owner),
        )

    async def delete_variable(self, identifier: str, *, owner: str | None = None) -> None:
        await self._store.update_session(self._id, lambda session: session.delete(identifier, owner=owner))

    async def history(self, identifier: str, limit: int | None = None) -> list[HistoryEntry]:
        """The versions of a variable that are known, latest first. Raises `VariableNotFound`."""
        return await self._store.read_session(self._id, lambda session: session.history(identifier, limit))

    async def rollback(
        self, identifier: str, version: int, *, source: Source = "host", owner: str | None = None
    ) -> Variable:
        """Give a variable the value of an earlier version, as a new version.

        Raises `VersionConflict` if the earlier version is not known, and the errors of `update_variable`.
        """
        return await self._store.update_session(
            self._id, lambda session: session.rollback(identifier, version, source=source, owner=owner)
        )

    async def start_optimization(
        self, identifier: str, optimizer_id: str, *, config: Mapping[str, str] = _NOTHING
    ) -> Optimization:
        """Mark a variable as being optimized. Raises `AccessDenied` if it is marked already, and `VariableNotFound`."""
        return await self._store.update_session(
            self._id, lambda session: session.start_optimization(identifier, optimizer_id, config=config)
        )

    async def stop_optimization(self, identifier: str) -> Variable:
        """Remove the mark that a variable is being optimized. Its value stays. Raises `VariableNotFound`."""
        return await self._store.update_session(self._id, lambda session: session.stop_optimization(identifier))

    async def add_dependency(self, identifier: str, on: str, kind: str = "data") -> None:
        """Make a variable depend on another one, `on`: its watchers are told when `on` changes.

        Raises `AccessDenied` if that would make a circle, and `VariableNotFound`.
        """
        await self._store.update_session(self._id, lambda session: session.add_dependency(identifier, on, kind))

    async def export_variables(self) -> list[dict[str, Any]]:
        return await self._store.read_session(self._id, exports.export_variables)

    async def import_variables(self, exported: Iterable[Mapping[str, Any]]) -> list[Variable]:
        wanted = self._as_now(list(exported))
        return await self._store.update_session(self._id, lambda session: exports.import_variables(session, wanted))

    @block("async with session.watch(...) as updates")
    async def watch(self, *names: str, initial: bool = True) -> AsyncIterator[Watcher]:
        """Watch variables, by name, or all of them: `async with session.watch("x") as updates`, then iterate.

        With `initial`, the first updates tell how the variables are. A slow watcher gets the latest update of each
        variable, and how many updates it missed. Iterating ends with the session. Entering the block counts as use of
        the session; watching does not.
        """
        require_trio()
        watcher = Watcher(names)
        self._store.hub.subscribe(self._id, watcher, watcher.hear)
        try:
            variables = await self.list_variables()
            if initial:
                watcher.begin([found for found in variables if not names or found.name in names])
            yield watcher
        finally:
            self._store.hub.unsubscribe(self._id, watcher)

    # Programs, and the session itself.

    async def store_program(self, program_id: str, program: Any) -> None:
        """Store a program, which is any value that can be sent, in place of any earlier one of this id.

        Raises `QuotaExceeded` and `EncodeError`.
        """
        taken = self._as_now(program)
        await self._store.update_session(self._id, lambda session: session.put_program(program_id, taken))

    async def get_program(self, program_id: str) -> Any:
        """The program of this id. Raises `ProgramNotFound`."""
        return await self._store.read_session(self._id, lambda session: session.get_program(program_id))

    async def update_program(self, program_id: str, changes: Mapping[str, Any]) -> Any:
        """Set some fields of a program that is a dict, and return it. Raises `ProgramNotFound` and `SessionError`."""
        taken = self._as_now(dict(changes))
        return await self._store.update_session(self._id, lambda session: session.change_program(program_id, taken))

    async def delete_program(self, program_id: str) -> None:
        """Remove a program. Raises `ProgramNotFound`."""
        await self._store.update_session(self._id, lambda session: session.delete_program(program_id))

    async def list_programs(self) -> list[str]:
        """The ids of the session's programs, oldest first."""
        return await self._store.read_session(self._id, lambda session: session.program_ids())

    async def put_metadata(self, key: str, value: str) -> None:
        """Set an entry of the session's metadata."""
        await self._store.update_session(self._id, lambda session: session.put_metadata(key, value))

    async def store_worker_session(self, worker_id: str | None) -> None:
        """Note which worker serves the session."""
        await self._store.update_session(self._id, lambda session: session.bind(worker_id))

    async def info(self) -> SessionInfo:
        """The facts about the session at this moment."""
        return await self._store.read_session(self._id, SessionInfo.of)
