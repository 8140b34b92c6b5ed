"""Starts and ends the workers of an autoscaled pool, as `AutoscalingPolicy` decides."""

from __future__ import annotations

from typing import Final

import trio

from snakepit_trio._calls.dispatcher import Dispatcher
from snakepit_trio._calls.queues import Needs
from snakepit_trio._calls.resources import offers_enough
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.policies import Bounds
from snakepit_trio._util.log import get_logger
from snakepit_trio._workers.autoscaling import AutoscalingPolicy, Load
from snakepit_trio._workers.supervisor import Supervisor, WorkerStarter
from snakepit_trio._workers.worker_state import WorkerState

from .worker_info import Workers

logger = get_logger("snakepit.pool")

_LOOKS: Final = 4  # in the shorter one of the two times of the policy
_LONGEST: Final = 1.0  # seconds between two looks
_SHORTEST: Final = 0.01


class Autoscaler:
    """Looks at the load of a pool now and then, and changes the number of its workers. Idle in other pools."""

    def __init__(
        self,
        policy: AutoscalingPolicy,
        config: PoolConfig,
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        workers: Workers,
    ) -> None:
        self._policy = policy
        self._concurrency = config.concurrency
        self._pause = config.quarantine
        self._every = max(_SHORTEST, min(_LONGEST, min(config.scale_up_after, config.idle_timeout) / _LOOKS))
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._workers = workers
        self._begun = trio.Event()
        self._bounds_changed = trio.Event()
        self._idle_since: dict[WorkerStarter, float] = {}
        self._running = trio.CancelScope()
        self._growing = trio.CancelScope()

    def begin(self) -> None:
        """Look from now on: the pool has its first workers."""
        self._begun.set()

    def stop(self) -> None:
        """Change nothing any more: the pool closes."""
        self._running.cancel()

    def change_bounds(self, bounds: Bounds) -> None:
        """Keep to other bounds. Workers that have not begun to start are not started; the caller sees to the bounds."""
        self._policy.bounds = bounds
        self._growing.cancel()
        self._bounds_changed.set()
        self._dispatcher.workers_changed.notify()  # for calls that waited for a worker which will not come now

    @property
    def most(self) -> int:
        """How many workers the load may start; 0 if it starts none."""
        bounds = self._policy.bounds
        return bounds.most if bounds.is_range else 0

    def may_grow(self, needs: Needs) -> bool:
        """Whether calls with some needs that wait for a worker may get a further one."""
        is_paused = self._policy.is_paused(trio.current_time())
        return not is_paused and any(offers_enough(offers, needs) for offers in self._supervisor.further(self.most))

    async def run(self) -> None:
        """Look and act until `stop`, or until cancelled."""
        with self._running:
            await self._begun.wait()
            while True:
                while not self._policy.bounds.is_range:
                    self._bounds_changed = trio.Event()
                    await self._bounds_changed.wait()
                await trio.sleep(self._every)
                with logger.tolerates("autoscaling"):
                    await self._look()

    async def _look(self) -> None:
        now = trio.current_time()
        idle = self._idle()
        before = self._supervisor.target
        target = self._policy.decide(now, self._load(before, idle))
        if target == before:
            return
        self._tell(before, target)
        if target > before:
            await self._grow(target - before)
        else:
            surplus = [starter for starter, since in idle.items() if self._policy.is_surplus(now, since)]
            self._shrink(before - target, surplus)

    def _load(self, target: int, idle: dict[WorkerStarter, float]) -> Load:
        states = [starter.state for starter in self._supervisor.active()]
        unserved = self._dispatcher.unserved(self._supervisor.further(self.most))
        return Load(
            target=target,
            ready=states.count(WorkerState.READY) + states.count(WorkerState.BUSY),
            starting=states.count(WorkerState.STARTING) + states.count(WorkerState.RESTARTING),
            wanted=-(-unserved // self._concurrency),
            idle_since=list(idle.values()),
        )

    def _idle(self) -> dict[WorkerStarter, float]:
        """Workers without a call, and since when. One that has objects which sessions have stored is not idle."""
        self._note_idle()
        kept = self._dispatcher.has_kept_sessions()
        return {
            starter: since
            for starter, since in self._idle_since.items()
            if starter.worker.is_ready and starter.worker.slot not in kept
        }

    def _note_idle(self) -> None:
        before, self._idle_since = self._idle_since, {}
        for starter in self._supervisor.active():
            worker, since = starter.worker, before.get(starter)
            # A worker that replaces an idle one is as idle: a pool that recycles by age must shrink, too.
            if worker.is_ready and (worker.calls_served or since is None):
                since = worker.slot.last_progress
            if since is not None and not worker.calls:
                self._idle_since[starter] = since

    def _tell(self, before: int, target: int) -> None:
        reason = self._policy.reason
        logger.info("the pool has %d workers and gets %d: %s", before, target, reason)
        self._dispatcher.events.emit("pool.scaled", {"reason": reason}, workers=target, before=before)

    async def _grow(self, count: int) -> None:
        with trio.CancelScope() as self._growing:
            try:
                await self._workers._add(count)
            except Exception as error:
                self._policy.failed(trio.current_time(), self._pause)
                logger.error("a further worker cannot be started; next trial in %.1f s: %s", self._pause, error)
                self._dispatcher.events.emit("pool.scaling_failed", {"problem": str(error)})

    def _shrink(self, count: int, surplus: list[WorkerStarter]) -> None:
        """Take out workers: first those in quarantine, then idle ones, without sessions before others, then the rest.

        Of equal ones the newest goes first.
        """
        homes = self._dispatcher.has_sessions()

        def rank(starter: WorkerStarter) -> tuple[bool, bool, bool]:
            is_idle = starter in surplus
            return starter.state is not WorkerState.QUARANTINED, not is_idle, starter.worker.slot in homes

        newest_first = self._supervisor.active()[::-1]
        for starter in sorted(newest_first, key=rank)[:count]:
            self._supervisor.begin_retirement(starter)
