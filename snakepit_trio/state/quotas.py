"""How much a store may hold, and how large a value is."""

from __future__ import annotations

from typing import Any

import attrs

from bridge_py.wire import codec
from bridge_py.wire.errors import QuotaExceeded
from snakepit_trio._util.validation import whole


def _bound(most: int | None) -> Any:
    return attrs.field(default=most, validator=whole(0, or_none="no bound"))


@attrs.frozen(kw_only=True)
class Quotas:
    """How much one store may hold. None stands for no bound."""

    #: Sessions.
    sessions: int | None = _bound(None)
    #: Variables of one session.
    variables: int | None = _bound(10_000)
    #: Programs of one session, and global ones.
    programs: int | None = _bound(10_000)
    #: Bytes of one session: its variables with their history, and its programs, as they would be sent.
    bytes: int | None = _bound(1 << 30)
    #: How many versions of one variable `history` and `rollback` know: the latest ones.
    history: int = attrs.field(default=100, validator=whole(1))


def check_quota(count: int, most: int | None, whose: str, what: str) -> None:
    """Raise `QuotaExceeded` if one more would be too many."""
    if most is not None and count >= most:
        raise QuotaExceeded(f"{whose} has {count} {what}, and may have {most}: delete some, or raise the quota")


def size_of(value: Any, what: str) -> int:
    """How many bytes a value takes when it is sent. Raises `EncodeError`."""
    if type(value) in (float, int, bool):
        return 9
    encoded = codec.encode(value, what)
    return len(encoded.body) + encoded.size
