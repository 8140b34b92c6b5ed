"""Log records of a worker, as they travel to its host.

They travel as frames of the link. Where there is no link (in `setup`, in forked children, at the end of the process)
they travel as lines of stderr. Such a line has `MARK`, and a record in JSON behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from .errors import RemoteProtocolError

#: The name of an EVENT frame that has a log record.
LOG: Final = "log"
#: What precedes a record in a line of stderr.
MARK: Final = b"\x1esnakepit-log "
LONGEST_TEXT: Final = 16_000  # characters of a message, and of a traceback
LONGEST_STACK: Final = 4_000  # characters of a stack, of the few records that ask for one
LONGEST_NAME: Final = 200  # characters of a logger's name, and of other names
#: Costs of records that one worker may log at once, and in each second after that. A record costs one for each 512
#: bytes, and one more.
MOST_AT_ONCE: Final = 2_000
MOST_PER_SECOND: Final = 1_000
_COST_BYTES: Final = 512
_LONGEST_LINE: Final = 60_000  # bytes: the host reads lines of 64 KiB
_SHORT: Final = 2_000  # characters, for lines that would be longer


class Logged(msgspec.Struct, array_like=True, gc=False):
    """What a worker has logged: one record, or how many were `dropped`."""

    name: str = ""
    level: int = 0
    level_name: str = ""
    message: str = ""
    exception: str = ""
    stack: str = ""
    created: float = 0.0
    path: str = ""
    line: int = 0
    function: str = ""
    process: int = 0
    thread: int = 0
    thread_name: str = ""
    #: The call whose code has logged it; 0 for none.
    call_id: int = 0
    dropped: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Logged).decode
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(Logged).decode


def encode_logged(logged: Logged) -> bytes:
    """Encode a record for a frame. Its texts must be such that UTF-8 can hold them."""
    return _encode(logged)


def read_logged(body: bytes) -> Logged:
    """Decode the record in a frame. Raises `RemoteProtocolError`."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a log record is broken: {error}") from None


def line_of(logged: Logged) -> bytes:
    """Encode a record as a line of stderr. Texts that are too long for one are cut."""
    line = MARK + _encode_json(logged) + b"\n"
    if len(line) > _LONGEST_LINE:
        logged.message, logged.exception = shortened(logged.message, _SHORT), ending(logged.exception, _SHORT)
        logged.stack = ending(logged.stack, _SHORT)
        line = MARK + _encode_json(logged) + b"\n"
    return line


def read_line(content: bytes) -> Logged | None:
    """Decode what stands behind the mark in a line; None if that is no record."""
    try:
        return _decode_json(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def shortened(text: str, most: int) -> str:
    """Cut the end of a text that is too long, and say how long it was."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def ending(text: str, most: int) -> str:
    """Cut the beginning of a text that is too long: the last lines of a traceback say what has happened."""
    return text if len(text) <= most else f"({len(text)} characters) ...{text[-most:]}"


def cost_of_log(size: int) -> int:
    """What a record of that many bytes costs."""
    return 1 + size // _COST_BYTES


class Bucket:
    """Bounds a rate: costs of `most` at once, and of `per_second` in each second."""

    def __init__(self, most: int, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._per_second = per_second
        self._clock = clock
        self._left: float = most
        self._at = clock()

    def take(self, cost: int) -> bool:
        """Take a cost, if so much is left. Returns whether it was."""
        if not self.has(cost):
            return False
        self._left -= cost
        return True

    def has(self, cost: int) -> bool:
        """Whether so much is left."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left >= cost
