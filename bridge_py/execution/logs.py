"""What the code of a worker logs goes to the host: the records themselves, and not text of them.

A handler above the root logger gets all records that propagate. Code that configures logging anew (`dictConfig`,
`basicConfig(force=True)`) replaces the handlers of the root logger, and does not reach this one.

Records wait in a queue for the thread of the link, or for whichever thread has the link. Logging never waits: what is
too much for the queue, or for its rate, is dropped and counted. Before there is a link, after its end, and in forked
children, records go to stderr at once, as lines that the host reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from bridge_py.wire.errors import type_name
from bridge_py.wire.logs import (
    LONGEST_NAME,
    LONGEST_STACK,
    LONGEST_TEXT,
    MOST_AT_ONCE,
    MOST_PER_SECOND,
    Bucket,
    Logged,
    cost_of_log,
    encode_logged,
    ending,
    line_of,
    read_logged,
    shortened,
)

__uninterruptible__ = True  # a record that is half made, or half written, would be lost
_STDERR: Final = 2
_LONGEST_SHOWN: Final = 200  # characters of a message, or of its arguments, that do not fit together
_MOST_NUMBER: Final = 1 << 62


class HostHandler(logging.Handler):
    """Hands the records of this process to its host. One process has one."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        #: Tells the id of the call whose code runs here; 0 if there is none.
        self.running: Callable[[], int] = _nothing
        # Of this process's threads. A signal handler, or a finalizer, may log while its thread has the lock.
        self._turns = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._waiting_cost = 0
        self._dropped = 0
        self._bucket = Bucket(MOST_AT_ONCE, MOST_PER_SECOND)
        self._post: Callable[[], None] | None = None
        self._pid = os.getpid()

    # Logging's side, on any thread.

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record. Unlike other handlers, this one holds no lock meanwhile: a fork may come at any time."""
        found: Any = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record to the host. Raises no `Exception`."""
        process = os.getpid()
        has_link = self._post is not None and process == self._pid
        if has_link and self._is_full():
            return
        logged = _described(record, process, self.running)
        with contextlib.suppress(Exception):  # where there is no stderr, nobody can be told
            if has_link:
                self._keep(encode_logged(logged))
                self._tell_link()
            else:
                _write(line_of(logged))

    def close(self) -> None:
        """Do nothing: whoever configures logging anew closes all handlers, and this one goes on."""

    def _is_full(self) -> bool:
        """Count a record as dropped, before anything is done for it, if there is surely no room for it."""
        with self._turns:
            # The first one goes on: it is dropped below, and the link's thread is told then.
            if not self._dropped or (self._waiting_cost < MOST_AT_ONCE and self._bucket.has(1)):
                return False
            self._dropped += 1
        return True

    def _keep(self, body: bytes) -> None:
        """Put a record into the queue, or count it as dropped."""
        cost = cost_of_log(len(body))
        with self._turns:
            if self._waiting_cost + cost > MOST_AT_ONCE or not self._bucket.take(cost):
                self._dropped += 1
            else:
                self._waiting.append(body)
                self._waiting_cost += cost

    def _tell_link(self) -> None:
        try:
            if self._post is not None:
                self._post()
                return
        except RuntimeError:  # its loop has ended
            pass
        self.end()

    # The link's side.

    def begin(self, post: Callable[[], None]) -> None:
        """Hand records to the link from now on: `post` has its thread take them. Any thread calls `post`."""
        self._pid = os.getpid()
        self._post = post

    def take(self) -> bytes | None:
        """Return the next record that waits, encoded, or None."""
        with self._turns:
            if not self._waiting:
                return None
            body = self._waiting.popleft()
            self._waiting_cost -= cost_of_log(len(body))
        return body

    def take_dropped(self) -> bytes | None:
        """Return a record that says how many were dropped since the last time, encoded, or None if none were."""
        with self._turns:
            dropped, self._dropped = self._dropped, 0
        return encode_logged(Logged(dropped=dropped)) if dropped else None

    @property
    def has_more(self) -> bool:
        """Whether a record waits."""
        return bool(self._waiting)

    @property
    def has_dropped(self) -> bool:
        """Whether records were dropped, and the host does not know it yet."""
        return bool(self._dropped)

    def end(self) -> None:
        """Hand records to stderr from now on, because the link ends, and first those that still wait."""
        self._post = None
        if os.getpid() != self._pid:
            return  # what waits is the parent's
        while (body := self.take() or self.take_dropped()) is not None:
            _write(line_of(read_logged(body)))


def install(level: int) -> HostHandler:
    """Have what the code of this process logs go to its host, from `level` on. Returns the handler.

    In a process that was forked from one with such a handler, return that one.
    """
    root = logging.getLogger()
    if isinstance(root.parent, _Above):
        return root.parent.handler
    handler = HostHandler(level)
    # `logging.info(...)` and `basicConfig()` install a handler of their own where the root logger has none.
    root.addHandler(logging.NullHandler())
    root.setLevel(level)
    root.parent = _Above(handler, level)
    return handler


class _Above(logging.Logger):
    """A logger above the root logger, to which all records propagate."""

    def __init__(self, handler: HostHandler, level: int) -> None:
        super().__init__("host", level)
        self.handler = handler
        self.handlers.append(handler)


def _nothing() -> int:
    return 0


def _described(record: logging.LogRecord, process: int, running: Callable[[], int]) -> Logged:
    """Make what the host gets of a record, whatever is wrong with it."""
    try:
        return Logged(
            _name(record.name),
            _number(record.levelno),
            _name(record.levelname),
            _text(shortened(_message(record), LONGEST_TEXT)),
            _text(ending(_exception(record), LONGEST_TEXT)),
            _text(ending(record.stack_info or "", LONGEST_STACK)),
            float(record.created),
            _name(record.pathname),
            _number(record.lineno),
            _name(record.funcName),
            process,
            _number(record.thread),
            _name(record.threadName),
            running(),
        )
    except Exception as error:
        return Logged("snakepit.logs", logging.ERROR, message=f"a log record could not be read: {type_name(error)}")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        told = f"its message could not be formatted, {type_name(error)}: {_shown(str, error)}"
        return f"{_shown(str, record.msg)} % {_shown(repr, record.args)} ({told})"


def _exception(record: logging.LogRecord) -> str:
    if record.exc_text:
        return record.exc_text
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    try:
        return logging.Formatter().formatException(record.exc_info)
    except Exception as error:
        return f"{type_name(record.exc_info[1])} (its traceback could not be formatted, {type_name(error)})"


def _shown(show: Callable[[object], str], value: object) -> str:
    try:
        return shortened(show(value), _LONGEST_SHOWN)
    except Exception as error:
        return f"<its {show.__name__}() raised {type_name(error)}>"


def _text(text: str) -> str:
    """Make a plain text that UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _name(value: object) -> str:
    return "" if value is None else _text(str(value)[:LONGEST_NAME])


def _number(value: Any) -> int:
    return 0 if value is None else max(-_MOST_NUMBER, min(int(value), _MOST_NUMBER))


def _write(line: bytes) -> None:
    """Write a line to stderr, past `sys.stderr`, which may be anything, or nothing any more."""
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(_STDERR, rest) :]
