"""What a worker logs and prints, as records of the application's logging."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bridge_py.wire.logs import LONGEST_NAME, LONGEST_STACK, LONGEST_TEXT, MOST_AT_ONCE, MOST_PER_SECOND, Bucket, Logged
from bridge_py.wire.readable import readable
from snakepit_trio._util.log import SafeLogger

if TYPE_CHECKING:
    from snakepit_trio._calls.call import Call

_LONGEST_KEPT: Final = 4 * 1024  # characters of a line that error messages show
_MOST_LINES: Final = 100
_MARKED: Final = 100  # characters, in which a worker of ours says how much it has cut
_LONGEST: Final = LONGEST_TEXT + _MARKED
_SLACK: Final = 2  # how much more than a worker of ours a worker may log
_CLOCKS_DIFFER: Final = 86_400.0  # seconds; a record whose time is further away has the host's time
_MOST_LEVEL: Final = 1_000
_MOST_DROPPED: Final = 1 << 53


class WorkerLogs:
    """Makes log records of what one worker says, and hands them to the application's logging, which may raise.

    Records go to `logger`, and keep the name of the worker's own logger. `calls` are the worker's running calls by id.
    `tail` gets the lines that error messages show. `on_drop` is called with a number of records that were dropped.
    """

    def __init__(
        self,
        worker_id: str,
        logger: SafeLogger,
        tail: deque[str],
        *,
        pid: int | None = None,
        calls: Mapping[int, Call] | None = None,
        on_drop: Callable[[int], None] | None = None,
    ) -> None:
        #: How many records were dropped, by the worker or here.
        self.dropped = 0
        self.tail = tail
        self._worker_id = worker_id
        self._logger = logger
        self.pid = pid
        self._calls = {} if calls is None else calls
        self._on_drop = on_drop
        self._untold = 0  # of those dropped, without a record that says so
        self._bucket = Bucket(_SLACK * MOST_AT_ONCE, _SLACK * MOST_PER_SECOND)

    def print(self, text: str, level: int, stream: str) -> None:
        """Make a record of a line that the worker has printed. It is fit to be shown."""
        if stream == "stderr":
            self.tail.append(readable(text, _LONGEST_KEPT))
        self._hand(self._logger.logger.name, level, text, None, stream=stream)

    def is_taken(self, cost: int) -> bool:
        """Whether a record of a cost may come now. If not, count it as dropped."""
        if self._bucket.take(cost):
            return True
        self._drop(1)
        return False

    def take(self, logged: Logged) -> None:
        """Make a record of what the worker has logged, or of how many records it has dropped."""
        if logged.dropped > 0:
            self._drop(min(logged.dropped, _MOST_DROPPED))
        self.tell_dropped()
        if logged.dropped <= 0:
            self._log(logged)

    def tell_dropped(self) -> None:
        """Log how many records were dropped since the last time, if any were."""
        untold, self._untold = self._untold, 0
        if untold:
            text = f"worker {self._worker_id} has logged more than is passed on: {untold} log records were dropped"
            self._hand(self._logger.logger.name, logging.WARNING, text, None, dropped=untold)

    def _drop(self, number: int) -> None:
        self.dropped += number
        self._untold += number
        if self._on_drop is not None:
            self._on_drop(number)

    def _log(self, logged: Logged) -> None:
        level = min(max(logged.level, 0), _MOST_LEVEL)
        name = _line(logged.name) or "root"
        message = readable(logged.message, _LONGEST)
        exception, stack = readable(logged.exception, _LONGEST), readable(logged.stack, LONGEST_STACK + _MARKED)
        level_name = logging.getLevelName(level)
        if level_name == f"Level {level}":
            level_name = _line(logged.level_name) or level_name  # a level of the worker's own
        self._keep_tail(f"{level_name} {name}: {message}" + (exception and f"\n{exception}"))
        path = _line(logged.path)
        fields: dict[str, Any] = {
            "levelname": level_name,
            "exc_text": exception or None,
            "stack_info": stack or None,
            "pathname": path,
            "filename": os.path.basename(path),
            "module": os.path.splitext(os.path.basename(path))[0],
            "lineno": logged.line,
            "funcName": _line(logged.function) or None,
            "thread": logged.thread,
            "threadName": _line(logged.thread_name),
            "process": logged.process,
        }
        now = time.time()
        if abs(now - logged.created) < _CLOCKS_DIFFER:  # never so for nan
            fields |= {"created": logged.created, "msecs": logged.created % 1 * 1000}
        self._hand(name, level, message, logged.call_id or None, **fields)

    def _keep_tail(self, text: str) -> None:
        for line in text.split("\n")[-(self.tail.maxlen or _MOST_LINES) :]:
            self.tail.append(readable(line, _LONGEST_KEPT))

    def _hand(self, name: str, level: int, text: str, call_id: int | None, **fields: Any) -> None:
        """Hand a record to the application's logging."""
        call = None if call_id is None else self._calls.get(call_id)
        values = {
            "name": name,
            "msg": text,
            "args": None,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "pathname": "",
            "filename": "",
            "module": "",
            "funcName": None,
            "thread": None,
            "threadName": None,
            "process": self.pid,
            "processName": self._worker_id,
            "taskName": None,
            "worker": self._worker_id,
            "pid": self.pid,
            "call": None if call is None else call.number,
            "tool": None if call is None else call.name,
            "session": (call.session_id or None) if call is not None else None,
            "stream": None,
            "dropped": 0,
            **fields,
        }
        self._logger.hand_on(values)


def said_by_foreign(said: Mapping[str, str], logger: str = "", call_id: int = 0, created: float = 0.0) -> Logged:
    """The record that a foreign worker describes, by its message, level (a name), logger and exception."""
    return Logged(
        said.get("logger", "") or logger or "foreign",
        logging.getLevelNamesMapping().get(said.get("level", "").upper(), logging.INFO),
        message=said.get("message", "")[: LONGEST_TEXT + 1],
        exception=said.get("exception", "")[: LONGEST_TEXT + 1],
        created=created,
        call_id=call_id,
    )


def _line(text: str) -> str:
    return readable(text, LONGEST_NAME).replace("\n", "\\n")
