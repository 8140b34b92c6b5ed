"""The adapter of a pool that was opened without one: a few tools to try things out with."""

from __future__ import annotations

import collections
import os
import re
import resource
import time
from collections.abc import Iterator
from typing import Any

from bridge_py import BaseAdapter, SessionContext, tool


class Showcase(BaseAdapter):
    """Small tools that do what they say."""

    def setup(self) -> None:
        """Note when the worker started."""
        self._started = time.monotonic()
        self._calls = 0

    @tool
    def ping(self, message: str = "pong") -> dict[str, Any]:
        """Answer with the message, the worker's process id and its clock.

        Args:
            message: What to answer with.

        """
        self._calls += 1
        return {"message": message, "pid": os.getpid(), "time": time.time()}

    @tool
    def echo(self, **values: Any) -> dict[str, Any]:
        """Give back the arguments as they came."""
        self._calls += 1
        return values

    @tool
    def add(self, a: int | float, b: int | float) -> int | float:
        """Add two numbers."""
        self._calls += 1
        return a + b

    @tool
    def process_text(self, text: str, top: int = 3) -> dict[str, Any]:
        """Count the characters, lines, words and sentences of a text, and its most frequent words.

        Args:
            text: The text.
            top: How many of the most frequent words to list.

        """
        self._calls += 1
        words = re.findall(r"[\w']+", text.lower())
        return {
            "characters": len(text),
            "lines": len(text.splitlines()),
            "words": len(words),
            "sentences": len(re.findall(r"[^.!?\s][^.!?]*[.!?]*", text)),
            "most_frequent": collections.Counter(words).most_common(top),
        }

    @tool
    def get_stats(self, context: SessionContext) -> dict[str, Any]:
        """Tell about this worker process: calls served, seconds of life and of CPU, peak memory in bytes."""
        self._calls += 1
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": os.getpid(),
            "calls": self._calls,
            "uptime_seconds": time.monotonic() - self._started,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_memory_bytes": usage.ru_maxrss * 1024,
            "session": context.session_id,
        }

    @tool
    def ping_stream(self, count: int = 5, interval: float = 0.0) -> Iterator[dict[str, Any]]:
        """Yield `count` numbered pings.

        Args:
            count: How many.
            interval: Seconds between two of them.

        """
        self._calls += 1
        for number in range(count):
            if number and interval:
                time.sleep(interval)
            yield {"number": number, "time": time.time()}
