"""Copies of sessions whose originals lie in a store outside of this process, and how a copy follows its original.

A copy is always as the original was at one version. A change is tried on a *draft*, and goes to the copy when the store
has made it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
import outcome

from bridge_py.wire.errors import EncodeError, StoreCorrupt

from . import parts
from .backend import Known, Sizes, State
from .parts import HEAD, PROGRAM, VARIABLE, Head, Program, Stored
from .quotas import SESSION_BYTES, Quotas, size_of, size_of_entries
from .session import _ABSENT, Change, Session

T = TypeVar("T")


class Delta(msgspec.Struct):
    """What becomes of the parts of a session. A value is None where the part is removed."""

    head: Head | None = None
    variables: dict[str, Stored | None] = {}
    programs: dict[str, Program | None] = {}

    def __bool__(self) -> bool:
        return self.head is not None or bool(self.variables) or bool(self.programs)

    @property
    def removed(self) -> list[str]:
        """The keys of parts that are removed."""
        return [
            *(VARIABLE + name for name, stored in self.variables.items() if stored is None),
            *(PROGRAM + name for name, program in self.programs.items() if program is None),
        ]


class Draft(msgspec.Struct):
    """A changed session that is not in the store yet: the parts to write, and what it holds."""

    delta: Delta
    parts: dict[str, bytes]
    sizes: Sizes


class Copy:
    """A session of the store, as it was at one version."""

    def __init__(self, session: Session, birth: int, version: int) -> None:
        self.session = session
        self.birth = birth
        self.version = version
        self._stored: dict[str, Stored] = {}  # by the name of the variable
        self._serials: dict[str, int] = {}  # by the id of the program

    @classmethod
    def of(cls, session_id: str, state: State, quotas: Quotas) -> Copy:
        """Make a copy of all parts. Raises `StoreCorrupt`."""
        session = Session(session_id, now=state.created_at, ttl=state.ttl, quotas=quotas)
        found = cls(session, state.birth, 0)
        found.take(state)
        return found

    @property
    def known(self) -> Known:
        """What this copy is of."""
        return Known(self.birth, self.version)

    def take(self, state: State) -> list[Change]:
        """Follow the original, and return the changes of variables. Raises `StoreCorrupt`: the copy is unharmed."""
        delta = self._delta_of(state)
        return self.apply(delta, state.version, state.last_accessed, state.size)

    def apply(self, delta: Delta, version: int, now: float, size: int) -> list[Change]:
        """Follow the original, whose parts have become those of `delta`. Returns the changes of variables."""
        session = self.session
        session.begin()
        if delta.head is not None:
            session._metadata = dict(delta.head.metadata)
            session.worker_id, session.host_id = delta.head.worker_id, delta.head.host_id
            session.epoch = delta.head.epoch
        for name, stored in delta.variables.items():
            self._put_variable(name, stored)
        for program_id, program in delta.programs.items():
            self._put_program(program_id, program)
        self._put_in_order()
        session.bytes = size
        session.touch(now)
        self.version = version
        return session.commit()

    def draft(self, change: Callable[[Session], T], now: float) -> tuple[T, Draft | None]:
        """Try a change. Returns its result, and what is to be written: None if it changes nothing.

        The copy stays as it is. Raises what `change` raises, and `EncodeError` for what no store can keep.
        """
        session = _fork(self.session)
        session.touch(now)
        session.begin()
        result = change(session)
        delta, written = self._written(session)
        if not delta:
            return result, None
        return result, Draft(delta, written, self._sizes(session, delta))

    def tried(self, change: Callable[[Session], T], now: float) -> tuple[outcome.Maybe[T], Draft | None]:
        """Try a change as `draft` does, and keep what it raises."""
        try:
            result, draft = self.draft(change, now)
        except Exception as error:
            return outcome.Error(error), None
        return outcome.Value(result), draft

    # From outside to here.

    def _delta_of(self, state: State) -> Delta:
        delta = Delta()
        for key, part in state.parts.items():
            kind, name = key[:1], key[1:]
            if key == HEAD:
                delta.head = parts.decode_head(part)
            elif kind == VARIABLE:
                old = self._stored.get(name)
                if old is None or old.part != part:
                    delta.variables[name] = parts.decode_variable(part, name, old)
            elif kind == PROGRAM:
                delta.programs[name] = parts.decode_program(part, name)
            else:
                raise StoreCorrupt(f"session {self.session.id!r} in the store has a part {key!r} of no known kind")
        if state.keys is not None:
            self._note_removed(delta, state.keys)
        return delta

    def _note_removed(self, delta: Delta, keys: Collection[str]) -> None:
        there = set(keys)
        delta.variables.update({name: None for name in self._stored if VARIABLE + name not in there})
        delta.programs.update({name: None for name in self._serials if PROGRAM + name not in there})

    def _put_variable(self, name: str, stored: Stored | None) -> None:
        session, old = self.session, self._stored.pop(name, None)
        if old is not None:
            session._names.pop(old.entry.variable.id, None)
        if stored is None:
            if old is not None:
                session._drop(session._entries, name)
            return
        self._stored[name] = stored
        session._set(session._entries, name, stored.entry)
        session._names[stored.entry.variable.id] = name
        session._serial = max(session._serial, stored.entry.serial)

    def _put_program(self, program_id: str, program: Program | None) -> None:
        if program is None:
            self.session._programs.pop(program_id, None)
            self._serials.pop(program_id, None)
        else:
            self.session._programs[program_id] = program.value
            self._serials[program_id] = program.serial

    def _put_in_order(self) -> None:
        session = self.session
        if not _is_sorted(entry.serial for entry in session._entries.values()):
            entries = dict(sorted(session._entries.items(), key=lambda item: item[1].serial))
            session._entries.clear()  # the journal names this very dict
            session._entries.update(entries)
        if not _is_sorted(self._serials[program_id] for program_id in session._programs):
            session._programs = dict(sorted(session._programs.items(), key=lambda item: self._serials[item[0]]))

    # From here to outside.

    def _written(self, session: Session) -> tuple[Delta, dict[str, bytes]]:
        """What a change has changed. It is read back, so that it is here as it will be elsewhere."""
        names, programs, has_head = _touched(session)
        delta, written = Delta(), {}
        if has_head:
            head = Head(dict(session._metadata), session.worker_id, session.host_id, session.epoch)
            written[HEAD] = _checked("the metadata", parts.encode_head, head)
            delta.head = _checked("the metadata", parts.decode_head, written[HEAD])
        for name in names:
            old = self._stored.get(name)
            if (entry := session._entries.get(name)) is not None:
                written[VARIABLE + name] = part = _checked(name, parts.encode_variable, entry, old)
                delta.variables[name] = _checked(name, parts.decode_variable, part, name, old)
            elif old is not None:
                delta.variables[name] = None
        self._write_programs(session, programs, delta, written)
        return delta, written

    def _write_programs(
        self, session: Session, touched: Mapping[str, bool], delta: Delta, written: dict[str, bytes]
    ) -> None:
        last = max(self._serials.values(), default=0)
        for program_id in [each for each in session._programs if each in touched]:
            is_new = touched[program_id] or program_id not in self._serials
            last += is_new
            found = Program(session._programs[program_id], last if is_new else self._serials[program_id])
            written[PROGRAM + program_id] = part = _checked(program_id, parts.encode_program, found, program_id)
            delta.programs[program_id] = _checked(program_id, parts.decode_program, part, program_id)
        for program_id in touched:
            if program_id not in session._programs and program_id in self._serials:
                delta.programs[program_id] = None

    def _sizes(self, session: Session, delta: Delta) -> Sizes:
        # By what is read back, which every host counts alike, and not by what was given here.
        size = self.session.bytes
        for name, stored in delta.variables.items():
            old = self._stored.get(name)
            size += (0 if stored is None else parts.weight_of(stored.entry)) - (
                0 if old is None else parts.weight_of(old.entry)
            )
        for program_id, program in delta.programs.items():
            size += 0 if program is None else parts.weight_of_program(program, program_id)
            if program_id in self._serials:
                old_program = Program(self.session._programs[program_id], 0)
                size -= parts.weight_of_program(old_program, program_id)
        if delta.head is not None:
            size += size_of_entries(delta.head.metadata) - size_of_entries(self.session._metadata)
        return sizes_of(session.id, len(session._entries), len(session._programs), size)


def sizes_of(session_id: str, variables: int, programs: int, size: int) -> Sizes:
    """What a session counts for."""
    return Sizes(variables, programs, size, SESSION_BYTES + size_of(session_id, "session_id") + size)


class Copies:
    """The copies that this host keeps: the last ones that were used, and those that are pinned."""

    _LOOKED_AT: Final = 16

    def __init__(self, most: int, most_bytes: int, is_pinned: Callable[[str], bool]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._is_pinned = is_pinned
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._copies

    def __iter__(self) -> Iterator[str]:
        return iter(self._copies)

    def get(self, session_id: str) -> Copy | None:
        """The copy of a session, if it is kept."""
        return self._copies.get(session_id)

    def keep(self, found: Copy) -> None:
        """Keep a copy, new or changed, and let the least recently used ones go that are too many."""
        session_id = found.session.id
        self._copies[session_id] = found
        self._copies.move_to_end(session_id)
        self._count(session_id, SESSION_BYTES + found.session.bytes)
        for _ in range(self._LOOKED_AT):
            if len(self._copies) <= self._most and self._bytes <= self._most_bytes:
                return
            oldest = next(iter(self._copies))
            if oldest == session_id or self._is_pinned(oldest):
                self._copies.move_to_end(oldest)
            else:
                self.drop(oldest)

    def drop(self, session_id: str) -> Copy | None:
        """Let a copy go."""
        self._count(session_id, 0)
        return self._copies.pop(session_id, None)

    def _count(self, session_id: str, size: int) -> None:
        self._bytes += size - self._sizes.pop(session_id, 0)
        if size:
            self._sizes[session_id] = size


def _fork(session: Session) -> Session:
    """A session with dicts of its own, whose contents nobody changes."""
    found = copy.copy(session)
    found._entries = dict(session._entries)
    found._names = dict(session._names)
    found._programs = dict(session._programs)
    found._metadata = dict(session._metadata)
    return found


def _touched(session: Session) -> tuple[list[str], dict[str, bool], bool]:
    """What a change has touched: names of variables; ids of programs, and whether each was stored again; the head."""
    names: dict[str, None] = {}
    programs: dict[str, bool] = {}
    has_head = False
    for mapping, key, old in session._journal or ():
        if mapping is session._entries:
            names[key] = None
        elif mapping is session._programs:
            programs[key] = programs.get(key, False) or old is _ABSENT
        elif mapping is session._metadata or (mapping is session.__dict__ and key != "bytes"):
            has_head = True
    return list(names), programs, has_head


def _checked(what: str, step: Callable[..., Any], *args: Any) -> Any:
    """Encode or read back. What cannot be kept is refused before it is in the store."""
    try:
        return step(*args)
    except (StoreCorrupt, TypeError, ValueError) as error:
        if isinstance(error, EncodeError):
            raise
        raise EncodeError(f"{what} cannot be kept outside of this process: {error}") from None


def _is_sorted(serials: Iterable[int]) -> bool:
    last = -1
    for serial in serials:
        if serial < last:
            return False
        last = serial
    return True
