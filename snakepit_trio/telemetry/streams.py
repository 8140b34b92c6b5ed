"""A stream of events: a bounded buffer between the pool, which never waits, and a task that takes events from it."""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase

from snakepit_trio._util.news import News

from .handlers import Event


class EventStream(News[Event]):
    """Events as they happen, the oldest first. Made by `Pool.watch`.

    Iterating waits for the next event, and ends when the pool has closed or the block is left, after all events that
    wait. Only one task at a time may iterate: a second one gets `trio.BusyResourceError`. Cancelling loses no event.
    """

    def __init__(self, patterns: tuple[str, ...], most: int) -> None:
        super().__init__("watch")
        #: How many events were lost: each was the oldest of `most` events that waited when one more came.
        self.dropped = 0
        #: How many reports of progress were replaced by a later report of the same call before they were taken.
        self.replaced = 0
        self._patterns = patterns
        self._most = most
        self._numbers = itertools.count()  # the keys of events of which not only the latest counts

    def _hear(self, event: Event, latest_of: object) -> None:
        """Take an event. With `latest_of`, it replaces the waiting event of the same one, and takes its turn."""
        if self._has_ended or not any(fnmatchcase(event.name, pattern) for pattern in self._patterns):
            return
        key = next(self._numbers) if latest_of is None else latest_of
        if key in self._waiting:
            self.replaced += 1
        elif len(self._waiting) >= self._most:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._waiting[key] = event
        self._news.set()

    def end(self) -> None:
        """Take no more events. Those that wait may still be taken."""
        self._has_ended = True
        self._news.set()
