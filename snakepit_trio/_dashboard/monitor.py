"""Watches a pool for its dashboard: samples it once a second, and describes it to the browsers that look."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

import attrs
import trio

from snakepit_trio._util.changes import Changes
from snakepit_trio._util.log import get_logger
from snakepit_trio.telemetry import Events

from .history import History
from .log_lines import LogLines

logger = get_logger("snakepit.dashboard")

EVERY: Final = 0.5  # seconds between two pictures
_SAMPLE_EVERY: Final = 1.0
_SESSIONS_EVERY: Final = 2.0
_SESSIONS_WAIT: Final = 5.0  # seconds that a store of the application may take to answer
#: What one picture has at the most. The page says how many more there are.
_MOST_CALLS: Final = 100
_MOST_WORKERS: Final = 256
_MOST_SESSIONS: Final = 100
_LONGEST: Final = 200  # characters of a name


class WatchedPool(Protocol):
    """What the dashboard needs of a pool."""

    events: Events
    sessions: Any

    def get_stats(self) -> Any:
        """See `Pool.get_stats`."""
        ...

    def get_health(self) -> Any:
        """See `Pool.get_health`."""
        ...

    def get_info(self) -> dict[str, Any]:
        """See `Pool.get_info`."""
        ...

    def list_calls(self, most: int | None = None) -> Sequence[Any]:
        """See `Pool.list_calls`."""
        ...

    def cancel_call(self, call_id: int, reason: str = "") -> bool:
        """See `Pool.cancel_call`."""
        ...


@attrs.define
class Seen:
    """What a browser has got already: the numbers of the last sample, event and line."""

    sample: int = 0
    event: int = 0
    line: int = 0


class Monitor:
    """The history of one pool, and what it is like now. All browsers of all dashboards of the pool share it."""

    def __init__(self, pool: WatchedPool) -> None:
        self.has_ended = False
        #: Notified when `has_ended` is set.
        self.changes = Changes()
        self.watchers = 0
        self._pool = pool
        self._history = History()
        self._log = LogLines()
        self._detach = pool.events.attach("*", self._history.hear)  # one pattern costs less than nine
        logging.getLogger("snakepit").addHandler(self._log)
        self._about = _about(pool)
        self._stored: list[str] | None = None  # the ids of the store's sessions; None until it has answered
        self._stored_set: frozenset[str] = frozenset()
        self._now: dict[str, Any] = {}
        self._now_at = -1.0

    async def run(self) -> None:
        """Sample the pool until cancelled. An error of one sample is logged, and the next one comes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_sessions)
                while True:
                    with logger.tolerates("sampling a pool for its dashboard"):
                        self._sample()
                    await trio.sleep(_SAMPLE_EVERY)
        finally:
            self.end()

    def end(self) -> None:
        """Tell the browsers that the pool is gone."""
        logging.getLogger("snakepit").removeHandler(self._log)
        self._detach()
        self.has_ended = True
        self.changes.notify()

    def _sample(self) -> None:
        stats = self._pool.get_stats()
        workers = self._pool.get_health().workers
        more = {
            "queued": stats.queued,
            "running": stats.running,
            "ready": stats.ready,
            "memory": sum(worker.resident_bytes or 0 for worker in workers),
        }
        self._history.take_sample(attrs.asdict(stats), more, trio.current_time())

    async def _watch_sessions(self) -> None:
        # A store of the application may be slow, or fail. Its sessions are not read: that would count as use.
        while True:
            if self.watchers:
                with logger.tolerates("listing sessions for the dashboard"), trio.move_on_after(_SESSIONS_WAIT):
                    self._stored = [str(each) for each in await self._pool.sessions.list_sessions()]
                    self._stored_set = frozenset(self._stored)
            await trio.sleep(_SESSIONS_EVERY if self.watchers else EVERY)

    def picture(self, seen: Seen) -> str:
        """What a browser is told now, as JSON: how things are, and what is new since it was told last."""
        samples = self._history.samples_after(seen.sample)
        events = self._history.events_after(seen.event)
        lines = self._log.after(seen.line)
        seen.sample = samples[-1]["number"] if samples else seen.sample
        seen.event = events[-1]["number"] if events else seen.event
        seen.line = lines[-1]["number"] if lines else seen.line
        # Texts of workers may have anything in them; in this form, the page's parser reads all of it.
        return json.dumps({**self._as_it_is(), "samples": samples, "events": events, "lines": lines}, allow_nan=False)

    def _as_it_is(self) -> dict[str, Any]:
        now = trio.current_time()
        if now - self._now_at >= EVERY / 2:  # many browsers cost one look at the pool
            self._now, self._now_at = self._look(), now
        return self._now

    def _look(self) -> dict[str, Any]:
        stats, health = self._pool.get_stats(), self._pool.get_health()
        calls = sorted(self._pool.list_calls(_MOST_CALLS), key=lambda call: (call.worker_id is None, call.id))
        under_way = stats.queued + stats.running
        return {
            "at": time.time(),
            "about": self._about,
            "status": health.status,
            "stats": attrs.asdict(stats),
            "workers": [_worker(worker) for worker in health.workers[:_MOST_WORKERS]],
            "more_workers": max(0, len(health.workers) - _MOST_WORKERS),
            "calls": [_call(call) for call in calls],
            "more_calls": max(0, under_way - len(calls)) if len(calls) == _MOST_CALLS else 0,
            "sessions": self._look_at_sessions([call.session_id for call in calls if call.session_id]),
        }

    def _look_at_sessions(self, called: Sequence[str]) -> dict[str, Any]:
        """The store's sessions, and those that calls name before anything of them is in the store."""
        unstored = set(called) - self._stored_set
        return {
            "known": self._stored is not None,
            "ids": [each[:_LONGEST] for each in (self._stored or [])[:_MOST_SESSIONS]],
            "count": len(self._stored_set) + len(unstored),
            "calls": Counter(each[:_LONGEST] for each in called),
        }


def _about(pool: WatchedPool) -> dict[str, Any]:
    info = pool.get_info()
    return {name: str(info[name])[:_LONGEST] for name in ("name", "adapter", "version", "python")} | {
        "pid": os.getpid(),
        "concurrency": info["concurrency"],
    }


def _worker(worker: Any) -> dict[str, Any]:
    return {
        "id": worker.id,
        "pid": worker.pid,
        "node": worker.node,
        "state": str(worker.state),
        "spare": worker.is_spare,
        "calls": worker.calls_served,
        "memory": worker.resident_bytes,
        "latency": worker.latency,
        "started": worker.started_at,
        "restarts": worker.restarts,
    }


def _call(call: Any) -> dict[str, Any]:
    return attrs.asdict(call) | {"tool": call.tool[:_LONGEST], "session_id": (call.session_id or "")[:_LONGEST]}
