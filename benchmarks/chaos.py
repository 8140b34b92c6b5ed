"""`make chaos`: the worst that can happen, done to real processes, and a report of what became of it.

The storm is a minute of load while workers are killed, several a second. Every call must end with its own right
result or a typed error, in time; idempotent ones with their result. Afterwards the pool must be at full strength
within two seconds, and no process, descriptor, task or file be left over. Then the host itself is in trouble: see
`benchmarks.host_chaos` and `benchmarks.host_faults`. For the rest see `benchmarks.scenarios`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio
from rich.console import Console
from rich.table import Table

import snakepit_trio as snakepit
from snakepit_trio._processes.registry import runs_folder
from snakepit_trio.testing.replay import translated, watch

from . import host_chaos, host_faults, scenarios

TOOLS = "benchmarks.chaos_tools:Tools"
CALLERS = 64
FULL_STRENGTH = 2.0  # seconds
LATE = 3.0  # seconds past its deadline after which a call counts as hung: grace, and the time to kill and reap
_SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP, "SIGSEGV": signal.SIGSEGV}
_CALLS = {"exit": "exit", "memory": "exhaust"}


@attrs.define
class Report:
    """What came out. `problems` is empty if all held."""

    seconds: float
    title: str = "a storm of deaths"
    late: float = LATE
    full_strength: float = FULL_STRENGTH
    troubles: Counter[str] = attrs.field(factory=Counter)  # of the host
    started: int = 0
    stopped: int = 0  # calls that ran when the time was over
    outcomes: Counter[str] = attrs.field(factory=Counter)
    kills: Counter[str] = attrs.field(factory=Counter)
    problems: list[str] = attrs.field(factory=list)
    slowest: float = 0.0  # seconds that a call took beyond its deadline; negative: none came near
    strength_after: float = math.inf  # seconds until the pool was whole again
    restarts: int = 0
    retried: int = 0
    memory_growth: int = 0  # bytes of the host, over the second half


class Chaos:
    """One run: callers, killers and the record."""

    def __init__(self, pool: snakepit.Pool, report: Report, seed: int) -> None:
        self._pool = pool
        self._report = report
        self._dice = random.Random(seed)
        self._token = 0

    async def run(self, rate: float, trouble: Callable[[], Awaitable[object]] | None = None) -> None:
        """Load and kills, side by side, and trouble of the host."""
        report = self._report
        report.slowest = -math.inf
        with trio.move_on_after(report.seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(CALLERS):
                    nursery.start_soon(self._caller)
                nursery.start_soon(self._killer, rate)
                nursery.start_soon(self._watch_memory)
                if trouble is not None:
                    nursery.start_soon(trouble)
        began = trio.current_time()
        with trio.move_on_after(30):
            await self._until_whole()
            report.strength_after = trio.current_time() - began
        stats = self._pool.get_stats()
        report.restarts, report.retried = stats.restarts, stats.retried
        if stats.queued or stats.running:
            report.problems.append(f"{stats.queued} calls queued and {stats.running} running when all were over")
        if report.strength_after > report.full_strength:
            report.problems.append(f"full strength only after {report.strength_after:.2f} s")

    async def _until_whole(self) -> None:
        # A worker that was stopped a moment ago still counts as ready: all must answer.
        while True:
            await self._pool.await_ready(30)
            if all(_runs(worker.pid) for worker in self._pool.list_workers()):
                return
            await trio.sleep(0.01)

    async def _caller(self) -> None:
        actions = [self._idempotent] * 5 + [self._once] * 3 + [self._stream] * 2 + [self._cancelled, self._late]
        while True:
            self._token += 1
            self._report.started += 1
            try:
                name, failure = await self._settle(self._dice.choice(actions), self._token)
            except trio.Cancelled:
                self._report.stopped += 1
                raise
            self._report.outcomes[name] += 1
            if failure:
                self._report.problems.append(failure)

    async def _settle(self, action: Callable[[int], Awaitable[str]], token: int) -> tuple[str, str]:
        try:
            return await action(token), ""
        except (snakepit.WorkerCrashed, snakepit.CallTimeout) as error:
            allowed = action != self._idempotent
            name = f"{action.__name__.strip('_')}: {type(error).__name__}"
            return name, "" if allowed else f"an idempotent call failed: {error}"

    async def _idempotent(self, token: int) -> str:
        seconds = self._dice.expovariate(200)
        result = await self._timed(self._work(token, seconds, 30, retries=100), 30)
        return self._checked("idempotent", result == token * 7 + 1)

    async def _once(self, token: int) -> str:
        result = await self._timed(self._work(token, self._dice.expovariate(200), 30), 30)
        return self._checked("once", result == token * 7 + 1)

    async def _stream(self, token: int) -> str:
        async with self._pool.stream("count", {"token": token, "n": 50}, timeout=30) as chunks:
            numbers = [chunk async for chunk in chunks]
        return self._checked("stream", numbers == [token + number for number in range(50)])

    async def _cancelled(self, token: int) -> str:
        with trio.move_on_after(self._dice.random() * 0.05):
            if self._dice.random() < 0.5:
                await self._pool.execute("spin", timeout=30)
            else:
                await self._work(token, 1.0, 30)
        return "cancelled: given up"

    async def _late(self, _token: int) -> str:
        try:
            await self._timed(self._pool.execute("spin", timeout=0.05), 0.05)
        except snakepit.CallTimeout:
            return "late: CallTimeout"
        return "late: result"

    def _work(self, token: int, seconds: float, timeout: float, retries: int = 0) -> Awaitable[int]:
        return self._pool.execute("work", {"token": token, "seconds": seconds}, timeout=timeout, retries=retries)

    async def _timed(self, call: Awaitable[int], timeout: float) -> int:
        began = trio.current_time()
        try:
            return await call
        finally:
            late = trio.current_time() - began - timeout
            self._report.slowest = max(self._report.slowest, late)
            if late > self._report.late:
                self._report.problems.append(f"a call ended {late:.1f} s after its deadline")

    def _checked(self, name: str, right: bool) -> str:
        if not right:
            self._report.problems.append(f"{name}: the result of another call, or a wrong one")
        return f"{name}: {'right' if right else 'WRONG'}"

    async def _killer(self, rate: float) -> None:
        while True:
            await trio.sleep(self._dice.expovariate(rate))
            how = self._dice.choice([*_SIGNALS, *_CALLS])
            self._report.kills[how] += 1
            if how in _CALLS:
                with trio.move_on_after(0.5):
                    await self._settle_death(_CALLS[how])
            else:
                pids = [worker.pid for worker in self._pool.list_workers() if worker.pid]
                _send(self._dice.choice(pids or [0]), _SIGNALS[how])

    async def _settle_death(self, tool: str) -> None:
        try:
            await self._pool.execute(tool, timeout=10)
        except (snakepit.WorkerCrashed, snakepit.CallTimeout):
            return
        self._report.problems.append(f"{tool} did not kill its worker")

    async def _watch_memory(self) -> None:
        me = psutil.Process()
        await trio.sleep(self._report.seconds / 2)
        gc.collect()
        before = me.memory_info().rss
        while True:
            await trio.sleep(self._report.seconds / 20)
            self._report.memory_growth = me.memory_info().rss - before


async def run(
    report: Report,
    *,
    rate: float = 5.0,
    seed: int | None = None,
    trouble: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Fill in a report: load for its `seconds`, and that many kills a second."""
    before = _leftovers()
    async with snakepit.open_pool(
        TOOLS,
        workers=4,
        name="chaos",
        ping_interval=0.2,
        ping_timeout=0.3,
        taint_after=1_000_000,  # the killers are to go on killing
        max_restarts=1000,
    ) as pool:
        await Chaos(pool, report, time.time_ns() if seed is None else seed).run(rate, trouble)
    with trio.move_on_after(2):
        while _leftovers() - before:
            gc.collect()
            await trio.sleep(0.01)
    if left := _leftovers() - before:
        report.problems.append(f"left over: {sorted(left)}")
    if report.memory_growth > 20 * 2**20:
        report.problems.append(f"the host's memory grew by {report.memory_growth / 2**20:.0f} MiB")


def _send(pid: int, number: signal.Signals) -> None:
    try:
        if pid:
            os.kill(pid, number)
    except ProcessLookupError:
        return


def _runs(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _leftovers() -> set[str]:
    descriptors = {f"descriptor {name}" for name in os.listdir("/proc/self/fd")}
    processes = {f"process {child.pid}" for child in psutil.Process().children(recursive=True)}
    files = {f"file {name}" for name in os.listdir(runs_folder())}
    tasks = {f"tasks {trio.lowlevel.current_statistics().tasks_living}"}
    return descriptors | processes | files | tasks


def _show(console: Console, report: Report) -> None:
    table = Table("outcome", "calls", title=f"{report.title}: {report.seconds:.0f} s, {CALLERS} callers, 4 workers")
    for name, number in sorted(report.outcomes.items()):
        table.add_row(name, f"{number:,}")
    console.print(table)
    kills = ", ".join(f"{name} {number}" for name, number in sorted(report.kills.items()))
    console.print(f"{sum(report.kills.values())} kills: {kills}")
    if report.troubles:
        console.print("trouble of the host: " + ", ".join(f"{name} {n}" for name, n in sorted(report.troubles.items())))
    hung = sum("after its deadline" in problem for problem in report.problems)
    orphans = sum("left over" in problem for problem in report.problems)
    lost = report.started - report.stopped - report.outcomes.total()
    console.print(f"{hung} calls hung, {lost} calls lost, {'no' if not orphans else 'SOME'} orphans")
    console.print(f"{report.restarts} restarts, {report.retried} calls run again")
    console.print(f"the slowest call ended {report.slowest:+.2f} s from its deadline")
    console.print(f"full strength {report.strength_after:.2f} s after the last kill")
    console.print(f"the host's memory grew by {report.memory_growth / 2**20:.1f} MiB in the second half")


Told = Callable[[bool, str], None]


def _teller(console: Console, problems: list[str]) -> Told:
    def told(held: bool, text: str) -> None:
        console.print(f"{'held   ' if held else 'BROKEN '} {text}", highlight=False, markup=False)
        if not held:
            problems.append(text)

    return told


async def _scenarios(told: Told) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await _scenarios_in(Path(folder), told)


async def _scenarios_in(folder: Path, told: Told) -> None:
    number, seconds = await scenarios.kill_a_busy_host(folder)
    told(seconds < 2, f"host killed while workers hold the GIL: none of its {number} processes after {seconds:.2f} s")
    rates = await scenarios.serve_beside_a_killing_tool()
    share = min(rates.troubled) / rates.normal
    told(share > 0.5, f"a tool that kills its workers: others served at {share:.0%} of the rate at worst")
    seconds, ran_on = await scenarios.cancel_a_hundred(folder, 1.0)
    held = seconds < 2 and not ran_on
    told(held, f"100 calls cancelled at once, 1 s of grace: callers got on after {seconds:.2f} s, {ran_on} ran on")
    swept = await scenarios.sweep_ten_dead_hosts(folder)
    text = f"{swept.runs} hosts and their guardians killed: {swept.processes} processes swept in {swept.seconds:.2f} s"
    told(swept.runs == 10, text)


async def _slow_loop(told: Told) -> None:
    killed, blocked = await host_chaos.block_the_loop(20.0)
    told(not killed, f"the host's loop blocked for {blocked:.0f} of 20 s: {killed} of 4 healthy workers killed")


async def _count_ends(told: Told, number: int) -> None:
    codes = await host_chaos.count_ends(number)
    wrong = {code: n for code, n in codes.items() if code != 0}
    text = f"{codes.total():,} workers ended in order on a busy machine: {sum(wrong.values())} not with 0 {wrong or ''}"
    told(not wrong and codes.total() >= number, text)


def _walk(told: Told, console: Console, seconds: float, seed: int) -> None:
    """Faults at steps of a pool's life, in an order of chance, for some seconds."""
    deadline = time.monotonic() + seconds
    steps = host_faults.find_steps()
    tried = broken = 0
    for trial in host_faults.sample(steps, seed):
        if time.monotonic() > deadline:
            break
        walk = trial.run()
        tried += 1
        if walk.problems:
            broken += 1
            console.print(str(walk), highlight=False, markup=False)
    total = len(host_faults.trials(steps))
    told(not broken, f"{tried} of {total} faults at {len(steps)} steps of the host: {broken} did harm")


PARTS = ("storm", "scenarios", "host-storm", "slow-loop", "ends", "host-faults")


def main() -> None:
    """Run it and print the report; exits with 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each storm")
    parser.add_argument("--rate", type=float, default=5.0, help="kills a second")
    parser.add_argument("--seed", type=int, help="of the dice; the order of events still varies")
    parser.add_argument("--ends", type=int, default=2000, help="workers that end in order, whose exit codes count")
    parser.add_argument("--only", choices=PARTS, action="append", help="parts; host-faults alone tries all there are")
    options = parser.parse_args()
    parts = options.only or PARTS
    seed = time.time_ns() if options.seed is None else options.seed
    logging.getLogger("snakepit").setLevel(logging.CRITICAL)  # each death is logged
    console = Console()
    problems: list[str] = []
    told = _teller(console, problems)
    if "storm" in parts:
        problems += _storm(console, Report(options.seconds), options.rate, seed)
    if "scenarios" in parts:
        problems += _bounded(_scenarios, told, limit=300)
    if "host-storm" in parts:
        problems += _host_storm(console, options.seconds, options.rate, seed)
    if "slow-loop" in parts:
        problems += _bounded(_slow_loop, told, limit=120)
    if "ends" in parts:
        problems += _bounded(_count_ends, told, options.ends, limit=60 + 2 * options.ends)
    if "host-faults" in parts:
        _walk(told, console, math.inf if parts == ["host-faults"] else options.seconds, seed)
    for problem in problems[:20]:
        console.print(f"PROBLEM: {problem}", style="red", markup=False)
    console.print("all held" if not problems else f"{len(problems)} problems")
    sys.exit(bool(problems))


def _bounded(function: Callable[..., Awaitable[object]], *args: Any, limit: float) -> list[str]:
    """Run it. Returns the problem if it does not end, or ends with an error."""

    async def main() -> None:
        trio.lowlevel.spawn_system_task(watch, limit)
        await function(*args)

    try:
        with translated():
            trio.run(main)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def _storm(
    console: Console, report: Report, rate: float, seed: int, trouble: Callable[[], Awaitable[object]] | None = None
) -> list[str]:
    async def storm() -> None:
        await run(report, rate=rate, seed=seed, trouble=trouble)

    failures = _bounded(storm, limit=report.seconds + 120)
    _show(console, report)
    return report.problems + failures


def _host_storm(console: Console, seconds: float, rate: float, seed: int) -> list[str]:
    # The loop is blocked for two seconds at a time, and nobody can start a worker for one.
    report = Report(seconds, "a host in trouble", late=LATE + 8, full_strength=10.0)
    with host_chaos.small_disk() as disk:
        trouble = host_chaos.Trouble(report.troubles, random.Random(seed), disk)
        problems = _storm(console, report, rate / 2, seed, trouble.run)
    if not disk.is_own:
        console.print("no small disk could be mounted here: the folder of runs was removed, and never full")
    return problems


if __name__ == "__main__":
    main()
