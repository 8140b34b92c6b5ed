"""Checks of the arguments for a new session. Every store makes them before it makes a session."""

from __future__ import annotations

from collections.abc import Mapping

from bridge_py.wire.errors import SessionError
from snakepit_trio._util.validation import is_number, is_utf8


def check_new_session(session_id: object, ttl: object, metadata: object) -> None:
    """Raise `SessionError`, which names the argument, for an argument that no session can have."""
    if session_id is not None and not is_utf8(session_id):
        raise SessionError(f"session id {session_id!r}: give text that UTF-8 can hold, or None for a new id")
    if ttl is not None and not (is_number(ttl) and ttl > 0):
        raise SessionError(f"ttl is {ttl!r}: give seconds, or None for a session that does not expire")
    if not isinstance(metadata, Mapping) or not all(map(is_utf8, (*metadata, *metadata.values()))):
        raise SessionError(f"metadata={metadata!r}: give a dict of texts by texts")
