"""Tools that log, in every way in which a record could go wrong."""

from __future__ import annotations

import asyncio
import atexit
import logging
import logging.config
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from bridge_py import BaseAdapter, tool
from bridge_py.execution.logs import HostHandler

LOG = logging.getLogger("shop.orders")
LOG.error("said in the import")


class Broken:
    """An object whose text raises."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Silent(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise ValueError("no text")


def _dict_config() -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}})


def _basic_config() -> None:
    logging.basicConfig(force=True, filename=os.devnull)


def _no_handlers() -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    logging.shutdown()


CHANGES = {"dictConfig": _dict_config, "basicConfig": _basic_config, "no handlers": _no_handlers}


class Tools(BaseAdapter):
    """Logs, also when it starts and ends."""

    def __init__(self, at_end: str = "") -> None:
        self.at_end = at_end

    def setup(self) -> None:
        LOG.error("said in setup")
        if self.at_end == "fails":
            raise RuntimeError("no setup")

    def close(self) -> None:
        LOG.error("said in close")
        if self.at_end == "atexit":
            atexit.register(LOG.error, "said by an atexit function")
            for number in range(100):
                LOG.error("the last of %d", number)

    @tool
    def say(self, text: str, level: int = logging.ERROR) -> int:
        LOG.log(level, "said: %s", text)
        return os.getpid()

    @tool
    async def say_async(self, text: str) -> None:
        LOG.error("said: %s", text)
        await asyncio.to_thread(LOG.error, "said in a thread: %s", text)

    @tool
    def chunks(self, n: int) -> Iterator[int]:
        for number in range(n):
            LOG.error("chunk %d", number)
            yield number

    @tool
    def fail(self) -> None:
        try:
            raise KeyError("apples")
        except KeyError:
            LOG.exception("no such fruit")

    @tool
    def odd(self) -> None:
        LOG.error("%d apples", "three")
        LOG.error("%s", Broken())
        LOG.error(Broken())
        try:
            raise Silent
        except Silent:
            LOG.exception("silent")
        LOG.error("half a character: \ud800")
        LOG.error("\x1b[2Jcleared\x00")
        LOG.error("x" * 10_000_000)
        LOG.log(35, "at a level of its own")
        LOG.handle(logging.makeLogRecord({"name": None, "levelno": 40, "lineno": "three"}))

    @tool
    def in_threads(self, n: int) -> None:
        threads = [threading.Thread(target=LOG.error, args=("in thread %d", number)) for number in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @tool
    def in_child(self) -> int:
        pid = os.fork()
        if not pid:
            LOG.error("said by a child")
            os._exit(0)
        os.waitpid(pid, 0)
        return pid

    @tool
    def configure(self, how: str) -> None:
        CHANGES[how]()
        LOG.error("after %s", how)

    @tool
    def until_cancelled(self) -> None:
        try:
            LOG.error("it begins")
            time.sleep(60)
        except BaseException:
            for number in range(20):
                LOG.error("it is stopped: %d", number)
            raise

    @tool
    def flood(self, seconds: float) -> int:
        """Log as fast as it can; returns the number of records."""
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            LOG.error("flood %d %s", number, "x" * 100)
            number += 1
        return number

    @tool
    def flood_until_cancelled(self) -> None:
        while True:
            LOG.error("flood")

    @tool
    def crash(self, how: str) -> None:
        LOG.error("the last words of a crash")
        if how == "exit":
            os._exit(3)
        os.abort()

    @tool
    def below(self, n: int) -> Any:
        """Log records below the host's level; returns whether any of them was made."""
        made: list[logging.LogRecord] = []

        def make(*args: Any, **more: Any) -> logging.LogRecord:
            made.append(logging.LogRecord(*args, **more))
            return made[-1]

        logging.setLogRecordFactory(make)
        for _ in range(n):
            LOG.debug("below")
        return len(made)


class LateTools(Tools):
    """The same in a worker whose link takes its time to take log records."""

    def __init__(self) -> None:
        super().__init__()
        begin = HostHandler.begin

        def begin_late(self: HostHandler, post: Callable[[], None]) -> None:
            time.sleep(0.5)
            begin(self, post)

        HostHandler.begin = begin_late  # type: ignore[method-assign]
