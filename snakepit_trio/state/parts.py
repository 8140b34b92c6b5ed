"""Sessions as parts: bytes that a store outside of this process keeps.

    key          content
    ---          -------
    h            the head: metadata, worker, host, epoch
    v<name>      a variable with its history and dependencies
    p<id>        a program

Values are written by the project's own codec, never as pickles. Parts come from outside: a part that is broken raises
`StoreCorrupt`, which names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError, EncodeError, StoreCorrupt
from bridge_py.wire.variable import _NO_RULES, AccessRules, HistoryEntry, Optimization, Source, Variable

from .quotas import size_beside, size_in, size_of_entries
from .session import _Entry

T = TypeVar("T")
HEAD: Final = "h"
VARIABLE: Final = "v"
PROGRAM: Final = "p"


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session holds beside variables and programs. New fields need defaults: old stores lack them."""

    metadata: dict[str, str] = {}
    worker_id: str | None = None
    host_id: str | None = None
    epoch: int = 0


class Stored(msgspec.Struct, frozen=True):
    """A variable, and its part."""

    entry: _Entry
    part: bytes


class Program(msgspec.Struct, frozen=True):
    """A program, and its place in the order of creation."""

    value: Any
    serial: int


class _Value(msgspec.Struct, array_like=True, frozen=True):
    body: bytes
    area: bytes = b""


class _Version(msgspec.Struct, array_like=True, frozen=True):
    version: int
    timestamp: float
    changed_by: Source
    metadata: dict[str, str]
    size: int
    value: _Value


class _Facts(msgspec.Struct, array_like=True, frozen=True):
    """A variable without what its latest version tells."""

    id: str
    name: str
    type: str
    created_at: float
    constraints: _Value
    read_only: bool
    owner: str | None
    optimization: Optimization | None


class _VariablePart(msgspec.Struct, array_like=True, frozen=True):
    facts: msgspec.Raw
    history: list[msgspec.Raw]  # of `_Version`, oldest first; the last one is the variable's own
    serial: int
    dependents: dict[str, str]
    bases: list[str]


class _ProgramPart(msgspec.Struct, array_like=True, frozen=True):
    serial: int
    value: _Value


_pack = msgspec.msgpack.Encoder().encode
_read_head = msgspec.msgpack.Decoder(Head).decode
_read_facts = msgspec.msgpack.Decoder(_Facts).decode
_read_version = msgspec.msgpack.Decoder(_Version).decode
_read_variable = msgspec.msgpack.Decoder(_VariablePart).decode
_read_program = msgspec.msgpack.Decoder(_ProgramPart).decode
_read_value = msgspec.msgpack.Decoder(_Value).decode


def encode_head(head: Head) -> bytes:
    """The part of a head."""
    return _pack(head)


def decode_head(part: bytes) -> Head:
    """The head of a part. Raises `StoreCorrupt`."""
    return _reading(lambda: _read_head(part), "the head")


def encode_value(value: Any, what: str) -> bytes:
    """A value by itself. Raises `EncodeError`."""
    return _pack(_value(value, what))


def decode_value(part: bytes, what: str) -> Any:
    """The value of `encode_value`. Raises `StoreCorrupt`, and `CodecError` if its codec is missing here."""
    return _reading(lambda: _value_of(_read_value(part)), what)


def encode_program(program: Program, program_id: str) -> bytes:
    """The part of a program. Raises `EncodeError`."""
    return _pack(_ProgramPart(program.serial, _value(program.value, program_id)))


def decode_program(part: bytes, program_id: str) -> Program:
    """The program of a part. Raises as `decode_value` does."""

    def read() -> Program:
        found = _read_program(part)
        return Program(_value_of(found.value), found.serial)

    return _reading(read, f"program {program_id!r}")


def encode_variable(entry: _Entry, old: Stored | None) -> bytes:
    """The part of a variable. Versions that are in its old part already are taken from there. Raises `EncodeError`."""
    known = {} if old is None else _versions_by_identity(old)
    found = entry.variable
    facts = _Facts(
        found.id,
        found.name,
        found.type,
        found.created_at,
        _value(found.constraints, found.name),
        found.access_rules.read_only,
        found.access_rules.owner,
        found.optimization,
    )
    history = [
        known[id(version)] if id(version) in known else msgspec.Raw(_pack(_version(version, found.name)))
        for version in entry.history
    ]
    part = _VariablePart(msgspec.Raw(_pack(facts)), history, entry.serial, dict(entry.dependents), sorted(entry.bases))
    return _pack(part)


def decode_variable(part: bytes, name: str, old: Stored | None) -> Stored:
    """The variable of a part. What its old part has already is the same object. Raises as `decode_value` does.

    So a variable that has not changed is the same object too, even if its dependencies have changed.
    """
    return _reading(lambda: _stored(part, name, old), f"variable {name!r}")


def weight_of(entry: _Entry) -> int:
    """How many bytes a variable counts for in its session."""
    history = sum(version.size for version in entry.history)
    return size_beside(entry.variable) + history + size_of_entries(entry.dependents)


def weight_of_program(program: Program, program_id: str) -> int:
    """How many bytes a program counts for in its session."""
    return size_in({program_id: program.value}, program_id)


def _stored(part: bytes, name: str, old: Stored | None) -> Stored:
    found = _read_variable(part)
    known: dict[bytes, HistoryEntry] = {}
    before: _VariablePart | None = None
    if old is not None:
        before = _read_variable(old.part)
        known = {bytes(raw): version for raw, version in zip(before.history, old.entry.history, strict=True)}
    history = tuple(known.get(bytes(raw)) or _history_entry(raw) for raw in found.history)
    if before is not None and old is not None and _is_same(before, found):
        variable = old.entry.variable
    else:
        variable = _variable(_read_facts(found.facts), history[-1])
    if variable.name != name:
        raise ValueError(f"it is of variable {variable.name!r}")
    return Stored(_Entry(variable, history, found.serial, found.dependents, frozenset(found.bases)), part)


def _is_same(before: _VariablePart, now: _VariablePart) -> bool:
    return bytes(before.facts) == bytes(now.facts) and bytes(before.history[-1]) == bytes(now.history[-1])


def _variable(facts: _Facts, latest: HistoryEntry) -> Variable:
    constraints = _value_of(facts.constraints)
    if not isinstance(constraints, dict):
        raise TypeError("its constraints are no dict")
    return Variable(
        id=facts.id,
        name=facts.name,
        type=facts.type,
        value=latest.value,
        created_at=facts.created_at,
        updated_at=latest.timestamp,
        constraints=constraints,
        metadata=latest.metadata,
        version=latest.version,
        source=latest.changed_by,
        access_rules=_rules(facts),
        optimization=facts.optimization,
    )


def _rules(facts: _Facts) -> AccessRules:
    if not facts.read_only and facts.owner is None:
        return _NO_RULES
    return AccessRules(read_only=facts.read_only, owner=facts.owner)


def _versions_by_identity(old: Stored) -> Mapping[int, msgspec.Raw]:
    raws = _read_variable(old.part).history
    return {id(version): raw for version, raw in zip(old.entry.history, raws, strict=True)}


def _version(entry: HistoryEntry, name: str) -> _Version:
    value = _value(entry.value, name)
    return _Version(entry.version, entry.timestamp, entry.changed_by, dict(entry.metadata), entry.size, value)


def _history_entry(raw: msgspec.Raw) -> HistoryEntry:
    found = _read_version(raw)
    return HistoryEntry(
        found.version, _value_of(found.value), found.timestamp, found.changed_by, found.metadata, found.size
    )


def _value(value: Any, what: str) -> _Value:
    # `Exact`, so that tuples stay tuples, as they do in a store in memory.
    encoded = codec.encode(codec.Exact(value), what)
    try:
        return _Value(encoded.body, b"".join(encoded.buffers))
    finally:
        codec.let_go(encoded.buffers)


def _value_of(value: _Value) -> Any:
    return codec.decode(value.body, value.area)


def _reading(read: Callable[[], T], what: str) -> T:
    try:
        return read()
    except DecodeError as error:
        if isinstance(error, EncodeError) or type(error) is not DecodeError:
            raise  # a codec that is missing here is no fault of the store
        raise StoreCorrupt(f"{what} in the store cannot be read: {error}") from None
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise StoreCorrupt(f"{what} in the store cannot be read: {error}") from None
