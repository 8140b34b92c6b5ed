"""A page of memory that a worker shares with its host, and that outlives it.

It tells which call the worker has started last. If a worker could not start, it tells why. Unlike a pipe or a link, it
loses nothing, and no other news of the worker's death can come before it.

At first it holds the link's secret, until the worker takes that. An environment would show the secret to other
programs as long as the worker lives.
"""

from __future__ import annotations

import struct
from mmap import mmap
from typing import Final

from bridge_py.wire.errors import SnakepitError, type_name, words_of

LEDGER_BYTES: Final = 4096
_CALL: Final = struct.Struct("<Q")
_SIZE: Final = struct.Struct("<H")
_TEXT_AT: Final = _CALL.size + _SIZE.size
_LONGEST: Final = 2000  # bytes
_SECRET: Final = slice(2048, 2112)


def give_secret(ledger: mmap, secret: str) -> None:
    """Leave the link's secret for the worker: 64 characters of ASCII at the most."""
    ledger[_SECRET] = secret.encode("ascii").ljust(_SECRET.stop - _SECRET.start, b"\0")


def take_secret(ledger: mmap) -> str:
    """Return the link's secret, and remove it from the page."""
    secret = ledger[_SECRET].rstrip(b"\0").decode("ascii")
    ledger[_SECRET] = bytes(_SECRET.stop - _SECRET.start)
    return secret


def note_start(ledger: mmap, call_id: int) -> None:
    """Note that a call starts."""
    _CALL.pack_into(ledger, 0, call_id)


def last_started(ledger: mmap) -> int:
    """Return the id of the call that was started last; 0 if there was none."""
    (call_id,) = _CALL.unpack_from(ledger)
    return int(call_id)


def note_failure(ledger: mmap, error: BaseException, remedy: str = "") -> None:
    """Note why the worker cannot start, and what to do about it."""
    text = f"{in_words(error)[:_LONGEST]}{remedy}".encode("utf-8", "backslashreplace")[:_LONGEST]
    ledger[_TEXT_AT : _TEXT_AT + len(text)] = text
    _SIZE.pack_into(ledger, _CALL.size, len(text))  # after the text, because the host may read at any time


def failure_of(ledger: mmap) -> str:
    """Return why the worker could not start, in its own words; empty if it has said nothing."""
    (size,) = _SIZE.unpack_from(ledger, _CALL.size)
    return ledger[_TEXT_AT : _TEXT_AT + min(size, _LONGEST)].decode("utf-8", "replace")


def in_words(error: BaseException) -> str:
    """Describe why a worker could not start, from the exception that was raised."""
    text = words_of(error)
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return f"it called sys.exit({text})"
    if isinstance(error, (SnakepitError, SystemExit)):
        return text
    return f"{type_name(error)}: {text}" if text else type_name(error)
