"""`python -m benchmarks.scheduler`: microseconds per operation of the scheduler, by how many calls are in the queue."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from snakepit_trio._calls.queues import Limit, Needs, Slot
from snakepit_trio._calls.scheduler import Scheduler
from snakepit_trio._config.policies import Affinity

WAITING = (100, 10_000, 100_000)
SESSIONS = 5_000
WORKERS = 4
CONCURRENCY = 8
TIMES = 50  # operations of a kind in a round
ROUNDS = 15


class Item:
    """A call, as far as the scheduler sees."""

    order = 0
    rank = 0.0
    assigned_at = 0.0
    weight = 1
    limits: tuple[Limit, ...] = ()
    needs: Needs = ()
    passes = False
    size = 1

    def __init__(self, session_id: str, affinity: Affinity, priority: int) -> None:
        self.session_id = session_id
        self.affinity = affinity
        self.priority = priority


class Bench:
    """A pool whose workers are all busy, and a queue; each operation leaves the queue as long as it was."""

    def __init__(self, waiting: int, affinity: Affinity, sessions: int, highest: int) -> None:
        self.dice = random.Random(1)
        self.affinity = affinity
        self.highest = highest  # priority
        self.names = [f"session {number}" for number in range(sessions)] or [""]
        self.scheduler: Scheduler[Item] = Scheduler(concurrency=CONCURRENCY, ahead=0)
        self.slots: list[Slot[Item]] = []
        for _ in range(WORKERS):
            self.add()
        self.waiting = [self.submit() for _ in range(waiting + WORKERS * CONCURRENCY)]

    def add(self) -> None:
        """A worker comes."""
        self.slots.append(Slot())
        self.scheduler.add(self.slots[-1], 0.0)

    def submit(self) -> Item:
        """A call comes, of some session."""
        call = self.call()
        self.scheduler.submit(call, 0.0)
        return call

    def call(self) -> Item:
        """A call of some session and priority."""
        priority = self.dice.randint(-self.highest, self.highest) if self.highest else 0
        return Item(self.dice.choice(self.names), self.affinity, priority)

    def measure(self) -> dict[str, float]:
        """Seconds per operation. The operations follow each other so that each undoes what another did."""
        taken: dict[str, float] = {}
        calls = [self.call() for _ in range(TIMES)]
        taken["submit"] = _time(lambda n: self.scheduler.submit(calls[n], 0.0))
        self.dice.shuffle(calls)
        taken["withdraw"] = _time(lambda n: self.scheduler.withdraw(calls[n]))
        taken["release"] = _time(lambda _: self._release())
        taken["give_back"] = _time(self._give_back)
        taken["remove, requeue, add"] = _time(lambda _: self._replace_worker())
        for _ in range(TIMES):
            self.submit()
        return taken

    def _release(self) -> None:
        slot = self.slots[0]
        self.scheduler.release(slot, next(iter(slot.calls.values())), 1.0)

    def _give_back(self, number: int) -> None:
        slot = self.slots[number % WORKERS]
        if slot.calls:
            self.scheduler.give_back(slot, next(reversed(slot.calls.values())), 1.0)

    def _replace_worker(self) -> None:
        lost, _ = self.scheduler.remove(self.slots.pop(0), 1.0)
        for call in lost:
            self.scheduler.requeue(call, 1.0)
        self.add()


def main() -> None:
    """Print a table for the common line, one for calls of all priorities, and one for the lines of sessions."""
    tables: list[tuple[str, Affinity, int, int]] = [
        ("common line", "hint", 0, 0),
        ("of all priorities", "hint", 0, 100),
        (f"{SESSIONS:,} strict sessions", "strict", SESSIONS, 0),
    ]
    for title, affinity, sessions, highest in tables:
        columns = [_column(waiting, affinity, sessions, highest) for waiting in WAITING]
        print(f"{title + ', us:':<32}" + "".join(f"{waiting:>10,}" for waiting in WAITING) + "  waiting")
        for name in columns[0]:
            print(f"  {name:<30}" + "".join(f"{column[name] * 1e6:>10.2f}" for column in columns))


def _column(waiting: int, affinity: Affinity, sessions: int, highest: int) -> dict[str, float]:
    bench = Bench(waiting, affinity, sessions, highest)
    rounds = [bench.measure() for _ in range(ROUNDS)]
    return {name: statistics.median(taken[name] for taken in rounds) for name in rounds[0]}


def _time(operation: Callable[[int], object]) -> float:
    began = time.perf_counter()
    for number in range(TIMES):
        operation(number)
    return (time.perf_counter() - began) / TIMES


if __name__ == "__main__":
    main()
