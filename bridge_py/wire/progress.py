"""The progress of a call: what its code may report, and how a report travels."""

from __future__ import annotations

import operator
from typing import Any, Final, SupportsFloat, SupportsIndex

import msgspec

from .errors import RemoteProtocolError, UsageError
from .readable import readable

MOST: Final = 2**63  # of what is done, and of the total
LONGEST_NOTE: Final = 200  # characters
NO_NOTE: Final = ""
EVERY: Final = 0.05  # seconds between two reports of one call
#: A number of any type, such as numpy's.
Amount = SupportsIndex | SupportsFloat
#: What is done, the total if it is known, and a note.
Reported = tuple[int | float, int | float | None, str]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reported).decode


def checked(done: Any, total: Any, note: Any) -> Reported:
    """Make a report of what a tool has given. Raises `UsageError`."""
    if type(done) is not int or not 0 <= done <= MOST:
        done = _amount("done", done)
    if total is not None and (type(total) is not int or not 0 <= total <= MOST):
        total = _amount("total", total)
    if not isinstance(note, str):
        raise UsageError(f"progress: note={note!r:.100} is a {type(note).__name__}; give a short text")
    return done, total, note if len(note) <= LONGEST_NOTE else note[:LONGEST_NOTE]


def _amount(name: str, value: Any) -> int | float:
    number = value if type(value) is float else _number(value)
    if number is None or not 0 <= number <= MOST:  # nan is in no order
        none = ", or None if it is not known" if name == "total" else ""
        raise UsageError(f"progress: {name}={value!r:.100} is no amount; give a number from 0 to 2**63{none}")
    return number


def _number(value: Any) -> int | float | None:
    """Read a number of another type, such as numpy's; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return int(operator.index(value))
    except TypeError:
        pass
    try:
        return float(value) if hasattr(type(value), "__float__") else None
    except Exception:  # an array of several numbers, or one that is too large
        return None


def encode_report(reported: Reported) -> bytes:
    """Encode a report. This raises nothing: half characters in its note become question marks."""
    done, total, note = reported
    if not note.isascii():
        note = note.encode(errors="replace").decode()
    return _encode((done, total, str(note)))


def read_report(body: bytes) -> Reported:
    """Decode a report of a peer. Raises `RemoteProtocolError` for anything that `checked` does not make."""
    try:
        done, total, note = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a report of progress is broken: {error}") from None
    if not 0 <= done <= MOST or (total is not None and not 0 <= total <= MOST) or len(note) > LONGEST_NOTE:
        raise RemoteProtocolError("a report of progress has amounts, or a note, that no tool can report")
    return done, total, readable(note)
