"""Keeps the pool at strength: a starter for each worker restarts it when it ends, and replaces it when it is due."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping

import trio

from snakepit_trio._calls.call import Call
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.policies import Circuit, RestartPolicy
from snakepit_trio._util.changes import Changes
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import PoolClosed, WorkerStartError

from .spares import Spares
from .worker_process import Worker
from .worker_state import WorkerState

logger = get_logger("snakepit.supervisor")

_RECONCILE = 1.0  # seconds


class WorkerStarter:
    """Runs one worker after another under one id and one number."""

    def __init__(
        self,
        id: str,
        number: int,
        make_worker: Callable[[str, int], Worker],
        policy: RestartPolicy,
        recycling: trio.Lock,
        changes: Changes,
        spares: Spares,
        *,
        one_at_a_time: bool,
        is_spare: bool,
    ) -> None:
        self.id = id
        self.number = number
        self.is_spare = is_spare  # whether its worker is a spare, or will be one
        self._make_worker = make_worker
        self.workers: list[Worker] = []  # all workers whose process may live, the present one last
        self.worker = self._make()
        self.failure: WorkerStartError | None = None  # of the very first start
        self.start_failure: WorkerStartError | None = None  # of the latest start that failed
        self.failed_starts = 0
        self._is_up = is_spare  # nobody waits for a spare
        self.restarts = 0
        self.recycled = 0
        self._one_at_a_time = one_at_a_time  # never two processes: they would share a GPU or a port
        self._policy = policy
        self._recycling = recycling  # one at a time in a pool, so that the pool never runs short
        self._changes = changes
        self._spares = spares
        self._stopping = trio.Event()
        self._queueing = trio.CancelScope()  # for the turn to replace the worker; cancelled when that needs none

    def _make(self) -> Worker:
        worker = self._make_worker(self.id, self.number)
        worker.is_spare = self.is_spare
        self.workers.append(worker)
        return worker

    @property
    def state(self) -> WorkerState:
        """The state of the present worker, or why there is none."""
        if self.worker.state is WorkerState.STOPPED and not self._stopping.is_set():
            return WorkerState.RESTARTING if self._policy.circuit is Circuit.CLOSED else WorkerState.QUARANTINED
        return self.worker.state

    @property
    def is_up(self) -> bool:
        """Whether the very first start has worked, or has failed."""
        return self._is_up or self.worker.was_ready

    @property
    def is_starting(self) -> bool:
        """Whether a worker is starting, or has failed to start and has not yet ended."""
        return any(not worker.was_ready for worker in self.workers)

    def count_as_up(self) -> None:
        """Count as up: nobody waits for the first start any more."""
        self._is_up = True

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        return self._stopping.is_set()

    # How spares step in: see `Spares`.

    @property
    def lacks_worker(self) -> bool:
        """Whether it should have a worker that takes calls, had one, and has none now."""
        is_served = self.is_spare or self.is_stopping or any(worker.is_ready for worker in self.workers)
        return not is_served and self.is_up and self.failure is None

    @property
    def has_ready_spare(self) -> bool:
        """Whether its worker has started, and waits to step in."""
        return self.is_spare and not self.is_stopping and any(worker.is_ready_spare for worker in self.workers)

    @property
    def is_due(self) -> bool:
        """Whether its worker is to be replaced soon."""
        return self.worker.is_due

    @property
    def offers(self) -> Mapping[str, int]:
        """The resources that its worker offers, in thousandths by name."""
        return self.worker.slot.offers

    def step_in(self, replaced: str) -> None:
        """Become the starter of a worker: its worker takes calls from now on."""
        self.is_spare = False
        for worker in list(self.workers):  # two, if the spare is just being recycled
            worker.step_in(replaced)

    def stand_by(self) -> None:
        """Become the starter of a spare. A worker that takes calls is to be drained by the caller."""
        self.is_spare = True
        for worker in self.workers:
            worker.is_spare = not worker.was_ready

    async def run(self) -> None:
        """Run, restart and recycle until `stop` or `retire`, or until the very first start fails."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run, self.worker)
            while not self._stopping.is_set() and self.failure is None:
                await self.worker.due.turn.wait()
                if self.worker.is_due:
                    await self._recycle(nursery)
                else:
                    await self.worker.ended.wait()
                    await self._restart(nursery)

    async def _run(self, worker: Worker) -> None:
        try:
            await worker.run()
        except WorkerStartError as error:
            self.start_failure = error
            self.failed_starts += 1
            if not self.is_up:
                self.failure = error
            elif not self._stopping.is_set():
                logger.error("%s", error)
        except Exception:
            # A fault of our own counts as an end like any other: the next start comes after the usual pause.
            logger.exception("worker %s failed", worker.id)
        finally:
            self._is_up |= worker.was_ready
            self.workers.remove(worker)
            worker.ended.set()
            worker.due.turn.set()
            if worker is self.worker:
                self._queueing.cancel()
            self._changes.notify()  # for those that asked for the replacement which has failed to start
        if worker.failure is not None and self.failure is None and not self._stopping.is_set():
            logger.warning("%s; it is replaced", worker.failure)

    async def _restart(self, nursery: trio.Nursery) -> None:
        if self.failure is not None or self._stopping.is_set():
            return
        pause = self._policy.ended(trio.current_time(), served=self.worker.has_served)
        if self._policy.circuit is Circuit.OPEN:
            logger.error("worker %s keeps ending before it serves; next trial in %.1f s", self.id, pause)
        with trio.move_on_after(pause):
            await self._stopping.wait()
        if not self._stopping.is_set():
            self._policy.starting()
            self.restarts += 1
            self._start_fresh(nursery)

    def _start_fresh(self, nursery: trio.Nursery) -> None:
        self.worker = self._make()
        nursery.start_soon(self._run, self.worker)

    async def _recycle(self, nursery: trio.Nursery) -> None:
        old = self.worker
        # If the worker ends meanwhile, its restart must not wait for the replacements of others. Each waits by itself:
        # if all looked whenever something changed, a thousand that are due together would look a million times.
        with trio.CancelScope() as self._queueing:
            await self._recycling.acquire()
        if self._queueing.cancelled_caught:
            return
        try:
            if not self._is_due(old):
                return
            logger.info("worker %s is replaced: %s", self.id, old.due.reason)
            is_replaced = not self.is_spare and self._spares.step_in_for(self)
            if not is_replaced:
                await (self._end_and_start if self._one_at_a_time else self._start_and_end)(old, nursery)
        finally:
            self._recycling.release()
        if is_replaced:
            await self._follow(old, nursery)

    def _is_due(self, worker: Worker) -> bool:
        return worker.is_due and not self._stopping.is_set()

    async def _start_and_end(self, old: Worker, nursery: trio.Nursery) -> None:
        """Start a replacement. Only when it is ready, let the old worker finish its calls and end."""
        fresh = self._make()
        nursery.start_soon(self._run, fresh)
        await fresh.until_ready_or_over()
        if fresh.is_up:
            self.recycled += 1
            self.worker = fresh
            old.drain()
            self._changes.notify()  # the fresh worker was ready before it was visible here
        else:
            old.postpone()

    async def _end_and_start(self, old: Worker, nursery: trio.Nursery) -> None:
        """Let the old worker finish its calls and end. Only then start a replacement."""
        old.drain()
        await old.ended.wait()
        if not self._stopping.is_set():
            self.recycled += 1
            self._start_fresh(nursery)
            await self.worker.until_ready_or_over()

    async def _follow(self, old: Worker, nursery: trio.Nursery) -> None:
        """Start a fresh spare: another spare has stepped in for the old worker, which finishes its calls and ends."""
        self.recycled += 1
        old.drain()
        if self._one_at_a_time:
            await old.ended.wait()
        if not self._stopping.is_set():
            self._start_fresh(nursery)

    def stop(self) -> None:
        """End the worker in order and start no other."""
        self._set_stopping()
        for worker in [*self.workers, self.worker]:
            worker.stop()

    def hurry(self) -> None:
        """Kill the worker, and start no other."""
        self._set_stopping()
        for worker in [*self.workers, self.worker]:
            worker.hurry()

    def retire(self) -> None:
        """Let the worker finish its calls, end it, and start no other."""
        self._set_stopping()
        for worker in [*self.workers, self.worker]:
            worker.drain()

    def _set_stopping(self) -> None:
        self._stopping.set()
        self._queueing.cancel()
        self._changes.notify()  # it may wait for its number


class Supervisor:
    """All starters of a pool, and how many there should be."""

    def __init__(self, config: PoolConfig, make_worker: Callable[[str, int], Worker], changes: Changes) -> None:
        self.starters: dict[str, WorkerStarter] = {}
        self.target = 0
        self._is_stopped = False
        self._spares = Spares(self.starters)
        self._restarts_of_gone = self._recycled_of_gone = 0
        self._config = config
        self._ids = itertools.count(1)
        self._make_worker = make_worker
        self._changes = changes
        # Of a worker and its replacement only one may offer a GPU, or whatever it is.
        self._one_at_a_time = config.per_worker is not None or bool(config.resources)
        self._recycling = trio.Lock()
        self._nursery: trio.Nursery | None = None

    @property
    def restarts(self) -> int:
        """How often a worker that ended was started again."""
        return self._restarts_of_gone + sum(starter.restarts for starter in self.starters.values())

    @property
    def recycled(self) -> int:
        """How often a worker that was due was replaced."""
        return self._recycled_of_gone + sum(starter.recycled for starter in self.starters.values())

    def check_open(self) -> None:
        """Raise `PoolClosed` if no worker is started any more, because the pool closes."""
        if self._is_stopped:
            raise PoolClosed("the pool is closed: its block has been left")

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run starters and bring them back to their number, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            if self._config.spares:
                self._nursery.start_soon(self._fill)
            task_status.started()
            try:
                while True:
                    await trio.sleep(_RECONCILE)
                    with logger.tolerates("bringing the workers back to their number"):
                        self.reconcile()
            finally:
                self._is_stopped = True  # before the nursery is closed, which takes no tasks then

    async def _fill(self) -> None:
        while True:
            with logger.tolerates("having a spare step in"):
                self._spares.fill()
            await self._changes.wait()

    async def start(self, number: int, at_once: int) -> list[WorkerStarter]:
        """Add workers, a few at a time. Returns when all are ready, or when the pool closes.

        Raises the `WorkerStartError` of the first worker that cannot start, at once. Starts under way go on then, and
        also if this is cancelled.
        """
        added: list[WorkerStarter] = []
        starting: list[WorkerStarter] = []
        while (starting or len(added) < number) and not self._is_stopped:
            fresh = self._add_some(min(number - len(added), at_once - len(starting)))
            added += fresh
            starting += fresh
            await self._changes.wait()
            up = [starter for starter in starting if starter.is_up]
            for starter in up:
                if starter.failure is not None:
                    raise starter.failure
            starting = [starter for starter in starting if starter not in up]
        return added

    def _add_some(self, count: int) -> list[WorkerStarter]:
        assert self._nursery is not None
        self.target += count
        return [self._add(self._nursery, number) for number in self._free_numbers(count)]

    def reconcile(self) -> None:
        """Start missing workers, or retire surplus ones, the newest first."""
        assert self._nursery is not None
        active = self.active()
        for number in self._free_numbers(self.target - len(active)):
            self._add(self._nursery, number).count_as_up()
        for starter in active[self.target :]:
            starter.retire()
        self._reconcile_spares(self._nursery)

    def _reconcile_spares(self, nursery: trio.Nursery) -> None:
        spares = self.active(is_spare=True)
        for number in self._free_numbers(self._spares.target - len(spares)):
            self._add(nursery, number, is_spare=True)
        for starter in spares[self._spares.target :]:
            starter.retire()

    def keep_spares(self, number: int) -> None:
        """Start spares, and keep them at their number from now on. Nobody waits for them."""
        if not self._is_stopped:
            assert self._nursery is not None
            self._spares.target = number
            self._reconcile_spares(self._nursery)

    def active(self, *, is_spare: bool = False) -> list[WorkerStarter]:
        """The starters of workers, or of spares, that are not stopping."""
        return [each for each in self.starters.values() if each.is_spare is is_spare and not each.is_stopping]

    def _add(self, nursery: trio.Nursery, number: int, *, is_spare: bool = False) -> WorkerStarter:
        worker_id = f"{self._config.name}-{next(self._ids)}"
        starter = WorkerStarter(
            worker_id,
            number,
            self._make_worker,
            self._make_policy(),
            self._recycling,
            self._changes,
            self._spares,
            one_at_a_time=self._one_at_a_time,
            is_spare=is_spare,
        )
        self.starters[worker_id] = starter
        nursery.start_soon(self._run, starter)
        return starter

    def further(self, most: int) -> list[dict[str, int]]:
        """The resources that further workers would offer, if there were up to `most`."""
        return [self._config.worker_options.resources_of(number) for number in self._free_numbers(most - self.target)]

    def offers(self, most: int) -> list[dict[str, int]]:
        """The resources that each worker offers which the pool has, starts or restarts, in thousandths by name.

        So for the workers that the pool may start, up to `most`.
        """
        numbers = [starter.number for starter in self.active()]
        numbers += self._free_numbers(max(self.target, most) - len(numbers))
        return [self._config.worker_options.resources_of(number) for number in numbers]

    def _free_numbers(self, count: int) -> list[int]:
        """The lowest numbers that no starter has, unless it is stopping."""
        if count <= 0:
            return []  # as at most changes while workers start: no need to look at all of them
        taken = {starter.number for starter in self.starters.values() if not starter.is_stopping}
        free = (number for number in itertools.count() if number not in taken)
        return list(itertools.islice(free, count))

    async def _until_number_is_free(self, starter: WorkerStarter) -> None:
        """Wait until all earlier starters of this number have ended, or this one shall end."""
        earlier = [each for each in self.starters.values() if each.number == starter.number and each is not starter]
        while not starter.is_stopping and any(each.id in self.starters for each in earlier):
            await self._changes.wait()

    async def _run(self, starter: WorkerStarter) -> None:
        try:
            if self._one_at_a_time:
                await self._until_number_is_free(starter)
            if not starter.is_stopping:
                await starter.run()
        except Exception:
            # A fault of our own must not take the pool down; `reconcile` starts another starter.
            logger.exception("the starter of worker %s failed", starter.id)
        finally:
            del self.starters[starter.id]
            self._restarts_of_gone += starter.restarts
            self._recycled_of_gone += starter.recycled
            self.target -= starter.failure is not None
            starter.count_as_up()
            self._changes.notify()

    def _make_policy(self) -> RestartPolicy:
        config = self._config
        return RestartPolicy(
            max_restarts=config.max_restarts, restart_period=config.restart_period, quarantine=config.quarantine
        )

    def ready(self) -> list[Worker]:
        """The workers that take calls."""
        return [starter.worker for starter in self.starters.values() if starter.worker.is_ready]

    def missing(self) -> int:
        """How many workers should be ready and are not."""
        return max(0, self.target - len(self.ready()))

    def coming(self, waited_for: Container[Call]) -> int:
        """How many workers will be ready that are not, even if none of some calls ends.

        A worker that starts only after another has ended does not come as long as the other finishes such a call.
        """
        missing = self.missing()
        if not missing or not self._one_at_a_time:
            return missing
        held = {
            starter.number
            for starter in self.starters.values()
            for worker in starter.workers
            if worker.has_left and any(call in waited_for for call in worker.calls.values())
        }
        return missing - sum(each.number in held and not each.worker.is_ready for each in self.active())

    async def retire(self, starter: WorkerStarter) -> None:
        """Take one worker out: it finishes its calls first. Returns when it has ended."""
        self.begin_retirement(starter)
        await self._until_gone(starter)

    def begin_retirement(self, starter: WorkerStarter) -> None:
        """Take one worker out: it finishes its calls first, and nobody waits for that."""
        if not starter.is_stopping:
            self.target -= not starter.is_spare
            starter.retire()

    async def shrink(self, number: int) -> None:
        """Take out `number` workers, the newest first. Returns when they have ended."""
        active = self.active()
        surplus = active[len(active) - number :]
        self.target -= len(surplus)
        for starter in surplus:
            starter.retire()
        for starter in surplus:
            await self._until_gone(starter)

    async def _until_gone(self, starter: WorkerStarter) -> None:
        while starter.id in self.starters:
            await self._changes.wait()

    def hurry(self) -> None:
        """Kill all workers now, and start no others."""
        self._stop_starting()
        for starter in self.starters.values():
            starter.hurry()

    async def stop(self) -> None:
        """End all workers in order, side by side; returns when they have ended."""
        self._stop_starting()
        for starter in self.starters.values():
            starter.stop()
        while self.starters:
            await self._changes.wait()

    def _stop_starting(self) -> None:
        self.target = self._spares.target = 0
        self._is_stopped = True  # for those that are adding workers: `stop` would wait for each that comes after it
