"""How much a store may hold, and how large a value is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from bridge_py.wire import codec
from bridge_py.wire.errors import QuotaExceeded
from bridge_py.wire.variable import Variable
from snakepit_trio._util.validation import refuse, whole

SESSION_BYTES: Final = 1024  # what an empty session counts for in its store


def _bound(most: int | None) -> Any:
    return attrs.field(default=most, validator=whole(0, or_none="no bound"))


@attrs.frozen(kw_only=True)
class Quotas:
    """How much one store may hold. None stands for no bound."""

    #: Sessions.
    sessions: int | None = _bound(1_000_000)
    #: Variables of one session.
    variables: int | None = _bound(10_000)
    #: Programs of one session, and global ones.
    programs: int | None = _bound(10_000)
    #: Bytes of one session, as they would be sent: its variables with their names, history, metadata, constraints and
    #: dependencies, its programs with their ids, and its metadata.
    bytes: int | None = _bound(1 << 30)
    #: Bytes of the whole store: its sessions, each with its id and 1,024 bytes more, and the global programs.
    store_bytes: int | None = _bound(1 << 33)
    #: How many versions of one variable `history` and `rollback` know: the latest ones.
    history: int = attrs.field(default=100, validator=whole(1))


def quotas_of(quotas: object) -> Quotas:
    """The quotas that were given to a store, or the defaults. Raises `UsageError` for anything else."""
    if quotas is None:
        return Quotas()
    if not isinstance(quotas, Quotas):
        raise refuse("quotas", quotas, "give Quotas(...), or None for the defaults")
    return quotas


def check_quota(count: int, most: int | None, whose: str, what: str) -> None:
    """Raise `QuotaExceeded` if one more would be too many."""
    if most is not None and count >= most:
        raise QuotaExceeded(f"{whose} has {count} {what}, and may have {most}: delete some, or raise the quota")


def check_bytes(held: int, more: int, most: int | None, whose: str) -> None:
    """Raise `QuotaExceeded` if `more` bytes would be too many."""
    if more > 0 and most is not None and held + more > most:
        raise QuotaExceeded(
            f"{whose} holds {held} bytes, and may hold {most}; {more} more are too many: "
            "delete some, or raise the quota"
        )


def size_of(value: Any, what: str) -> int:
    """How many bytes a value takes when it is sent. Raises `EncodeError`."""
    if type(value) in (float, int, bool):
        return 9
    encoded = codec.encode(value, what)
    return len(encoded.body) + encoded.size


def size_of_version(value: Any, metadata: Mapping[str, str], what: str) -> int:
    """How many bytes one version of a variable takes. Raises `EncodeError`."""
    return size_of(value, what) + (size_of(metadata, what) if metadata else 0)


def size_beside(variable: Variable) -> int:
    """How many bytes a variable takes beside its versions. Raises `EncodeError`."""
    rules, running = variable.access_rules, variable.optimization
    mark = None if running is None else [running.optimizer_id, running.config]
    return size_of([variable.name, variable.id, variable.constraints, rules.owner, mark], variable.name)


def size_in(entries: Mapping[str, Any], key: str) -> int:
    """How many bytes an entry of a dict takes with its key; 0 if it is not there. Raises `EncodeError`."""
    return size_of([key, entries[key]], key) if key in entries else 0


def size_of_entries(entries: Mapping[str, Any]) -> int:
    """How many bytes the entries of a dict take, each by itself. Raises `EncodeError`."""
    return sum(size_in(entries, key) for key in entries)
