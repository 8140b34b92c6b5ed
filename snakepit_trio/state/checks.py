"""What no session can be: checked by every store before it makes one."""

from __future__ import annotations

from collections.abc import Mapping

from bridge_py.wire.errors import SessionError
from snakepit_trio.settings import is_number


def check_new_session(session_id: object, ttl: object, metadata: object) -> None:
    """Raise `SessionError`, which names the argument, for what no session can have."""
    if session_id is not None and not _can_be_sent(session_id):
        raise SessionError(f"session id {session_id!r}: give text that UTF-8 can hold, or None for a new id")
    if ttl is not None and not (is_number(ttl) and ttl > 0):  # type: ignore[operator]
        raise SessionError(f"ttl is {ttl!r}: give seconds, or None for a session that does not expire")
    if not isinstance(metadata, Mapping) or not all(map(_can_be_sent, (*metadata, *metadata.values()))):
        raise SessionError(f"metadata={metadata!r}: give a dict of texts by texts")


def _can_be_sent(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
