"""What all stores check and say alike."""

from __future__ import annotations

from collections.abc import Mapping

from bridge_py.wire.errors import EncodeError, ProgramNotFound, SessionError, SessionNotFound
from snakepit_trio._util.validation import is_number, is_utf8


def check_new_session(session_id: object, ttl: object, metadata: object) -> None:
    """Raise `SessionError`, which names the argument, for an argument that no session can have."""
    if session_id is not None and not is_utf8(session_id):
        raise SessionError(f"session id {session_id!r}: give text that UTF-8 can hold, or None for a new id")
    if ttl is not None and not (is_number(ttl) and ttl > 0):
        raise SessionError(f"ttl is {ttl!r}: give seconds, or None for a session that does not expire")
    if not isinstance(metadata, Mapping) or not all(map(is_utf8, (*metadata, *metadata.values()))):
        raise SessionError(f"metadata={metadata!r}: give a dict of texts by texts")


def check_program_id(program_id: object) -> None:
    """Raise `EncodeError` for anything but a text that all stores can keep."""
    if not is_utf8(program_id):
        raise EncodeError(f"program id {program_id!r:.100}: give text that UTF-8 can hold")


def no_session(session_id: str) -> SessionNotFound:
    """Make the error for a session that is not there."""
    return SessionNotFound(f"session {session_id!r} not found: it was never made, was deleted, or has expired")


def no_program(program_id: str) -> ProgramNotFound:
    """Make the error for a global program that is not there."""
    return ProgramNotFound(f"there is no global program {program_id!r}")


def no_program_of(session_id: str, program_id: str) -> ProgramNotFound:
    """Make the error for a program that a session does not have."""
    return ProgramNotFound(f"session {session_id!r} has no program {program_id!r}: `list_programs` tells which it has")
