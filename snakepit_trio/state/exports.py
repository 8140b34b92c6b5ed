"""Exports sessions and variables as plain values, and imports them: for another store, or another program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from bridge_py.wire import types
from bridge_py.wire.errors import SessionError
from bridge_py.wire.variable import HistoryEntry, Variable, new_variable

from .session import Session


def export_session(session: Session) -> dict[str, Any]:
    """All that a session holds, as a plain value. `import_session` makes the same session of it."""
    return {
        "id": session.id,
        "ttl": session.ttl,
        "metadata": dict(session.metadata),
        "programs": dict(session.programs),
        "worker_id": session.worker_id,
        "epoch": session.epoch,
        "variables": [_export(session, found) for found in session.matching()],
    }


def head_of(exported: Any) -> tuple[str, float | None, Mapping[str, str]]:
    """The id, the ttl and the metadata of an exported session. Raises `SessionError` if it is no export."""
    try:
        return exported["id"], exported["ttl"], exported["metadata"]
    except (LookupError, TypeError):
        raise SessionError(
            f"this is no exported session: {exported!r:.100}: give what export_session has returned"
        ) from None


def import_session(session: Session, exported: Mapping[str, Any]) -> None:
    """Fill an empty session from an export. Raises `SessionError` if it is no export, and `InvalidValue`."""
    try:
        found = msgspec.convert(exported, _ExportedSession)
    except msgspec.ValidationError as error:
        raise SessionError(f"this is no exported session: {error}") from None
    for program_id, program in found.programs.items():
        session.put_program(program_id, program)
    for variable in found.variables:
        session.restore(_checked(variable.variable()), variable.history)
    for variable in found.variables:
        for name, kind in variable.dependents.items():
            session.add_dependency(name, variable.name, kind)
    session.bind(found.worker_id)
    session.hold(None, found.epoch)


def export_variables(session: Session) -> list[dict[str, Any]]:
    """The variables, oldest first, without the parts that belong to this session alone: ids, times, optimization."""
    return [variable.to_export_map() for variable in session.matching()]


def import_variables(session: Session, exported: Iterable[Mapping[str, Any]]) -> list[Variable]:
    """Add variables to a session, with their versions. Raises as `Session.register` does, and `SessionError`."""
    found = []
    for entry in exported:
        try:
            given = msgspec.convert({"id": "", "created_at": 0.0, "updated_at": 0.0, **entry}, Variable)
        except msgspec.ValidationError as error:
            raise SessionError(f"this is no exported variable: {error}") from None
        made = new_variable(
            given.name,
            given.type,
            given.value,
            now=session.last_accessed,
            constraints=given.constraints,
            metadata=given.metadata,
            access_rules=given.access_rules,
            source=given.source,
            version=given.version,
        )
        session.restore(made, ())
        found.append(made.detached())
    return found


class _ExportedVariable(msgspec.Struct, kw_only=True):
    id: str
    name: str
    type: str
    value: Any
    created_at: float
    updated_at: float
    constraints: dict[str, Any]
    metadata: dict[str, str]
    version: int
    source: Any
    access_rules: Any
    optimization: Any
    history: list[HistoryEntry]
    dependents: dict[str, str]

    def variable(self) -> Variable:
        fields = msgspec.structs.asdict(self)
        del fields["history"], fields["dependents"]
        return msgspec.convert(fields, Variable)


class _ExportedSession(msgspec.Struct):
    id: str
    ttl: float | None
    metadata: dict[str, str]
    programs: dict[str, Any]
    worker_id: str | None
    variables: list[_ExportedVariable]
    epoch: Annotated[int, msgspec.Meta(ge=0)] = 0  # exports of earlier versions have none


def _export(session: Session, variable: Variable) -> dict[str, Any]:
    history = [msgspec.structs.asdict(entry) for entry in reversed(session.history(variable.name))]
    return {**variable.to_map(), "history": history, "dependents": session.dependents(variable.name)}


def _checked(variable: Variable) -> Variable:
    value = types.validate(variable.value, variable.type, variable.constraints)
    return msgspec.structs.replace(variable, value=value)
