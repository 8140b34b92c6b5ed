"""Hosts that run short of something, for tests/processes/test_shortages.py.

python -m tests.helpers.short_host NAME [ARGUMENT...]

Each prints JSON on its last line.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes import registry

TOOLS = "benchmarks.chaos_tools:Tools"
BOUND = 30.0  # seconds that anything may take


class Load:
    """Callers, and the outcomes of their calls by name. What must not be is in `problems`."""

    def __init__(self, pool: snakepit.Pool) -> None:
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []
        self._pool = pool
        self._is_over = False

    async def run_beside(self, body: Any) -> None:
        """Have eight callers call until the body is over, and wait for their last calls."""
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(self._call_again_and_again, number)
            await body()
            self._is_over = True

    async def _call_again_and_again(self, token: int) -> None:
        while not self._is_over:
            token += 8
            began = trio.current_time()
            name = await self._call(token)
            self.outcomes[name] += 1
            if trio.current_time() - began > BOUND:
                self.problems.append(f"a call took {trio.current_time() - began:.1f} s: {name}")
            await trio.sleep(0.005)

    async def _call(self, token: int) -> str:
        try:
            if token % 3:
                right = (
                    await self._pool.execute("work", {"token": token, "seconds": 0.001}, timeout=20) == 7 * token + 1
                )
            else:
                data = token.to_bytes(8, "little") * 2**15
                right = await self._pool.execute("echo", {"data": data}, timeout=20) == data
        except snakepit.SnakepitError as error:
            return type(error).__name__
        except Exception as error:
            self.problems.append(f"a call failed with {error!r}")
            return "untyped"
        if not right:
            self.problems.append("a call got a wrong result")
        return "right"


async def _ready_again(pool: snakepit.Pool, load: Load) -> None:
    await pool.await_ready(BOUND)
    assert await pool.execute("work", {"token": 1, "seconds": 0.0}) == 8
    assert load.outcomes["right"], load.outcomes


def _kill_all(pool: snakepit.Pool) -> None:
    for worker in pool.list_workers():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)


def _tell(**facts: Any) -> None:
    facts["left"] = os.listdir(registry.runs_folder())
    facts["children"] = [" ".join(child.cmdline())[:100] for child in psutil.Process().children(recursive=True)]
    print(json.dumps(facts), flush=True)


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Leave a program so many descriptors beyond those that it has."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + spare, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


async def descriptors(spare: str) -> None:
    """Workers die while there are no descriptors, again and again."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        load = Load(pool)

        async def starve() -> None:
            await trio.sleep(0.3)
            for _ in range(3):
                with few_descriptors(int(spare)):
                    _kill_all(pool)
                    await trio.sleep(1.0)
                await pool.await_ready(BOUND)

        await load.run_beside(starve)
        await _ready_again(pool, load)
    _tell(outcomes=load.outcomes, problems=load.problems)


async def descriptors_when_opening() -> None:
    """Open pools with fewer and fewer descriptors to spare, and one when there are enough again."""
    found: Counter[str] = Counter()
    problems = []
    before = sorted(os.listdir("/proc/self/fd"))
    for spare in range(30, 0, -2):
        with few_descriptors(spare):
            try:
                with trio.fail_after(BOUND):
                    async with snakepit.open_pool(TOOLS, workers=2) as pool:
                        assert await pool.execute("work", {"token": 1, "seconds": 0.0}, timeout=20) == 8
                name = "worked"
            except (snakepit.SnakepitError, OSError) as error:
                name = type(error).__name__
            except BaseException as error:
                name = "untyped"
                problems.append(f"with {spare} to spare: {error!r}")
        found[name] += 1
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        assert await pool.execute("work", {"token": 1, "seconds": 0.0}) == 8
    await trio.sleep(0.1)
    left = len(os.listdir("/proc/self/fd")) - len(before)
    if left > 0:
        problems.append(f"{left} descriptors are left")
    _tell(outcomes=found, problems=problems)


@contextmanager
def full(folder: str) -> Iterator[None]:
    """Fill a file system to its last byte and inode."""
    hoard = Path(folder, "hoard")
    hoard.mkdir()
    try:
        _fill(hoard)
        yield
    finally:
        shutil.rmtree(hoard)


def _fill(hoard: Path) -> None:
    for size in (65536, 4096, 1):
        for number in range(100_000):
            try:
                with Path(hoard, f"{size}-{number}").open("wb", buffering=0) as file:
                    if file.write(bytes(size)) < size:
                        break
            except OSError:
                break


async def disk(folder: str) -> None:
    """The folder of runs, or that of temporary files, is on a disk that becomes full: workers die, pools are opened."""
    tempfile.tempdir = None
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        load = Load(pool)
        opened: list[str] = []

        async def fill() -> None:
            await trio.sleep(0.3)
            with full(folder):
                _kill_all(pool)
                await trio.sleep(1.0)
                opened.append(await _try_to_open(load))
                await trio.sleep(0.5)
            await pool.await_ready(BOUND)

        await load.run_beside(fill)
        await _ready_again(pool, load)
    with full(folder):
        opened.append(await _try_to_open(load))
    opened.append(await _try_to_open(load))
    _tell(outcomes=load.outcomes, problems=load.problems, opened=opened)


async def _try_to_open(load: Load) -> str:
    try:
        with trio.fail_after(BOUND):
            async with snakepit.open_pool(TOOLS, workers=1) as pool:
                assert await pool.execute("work", {"token": 1, "seconds": 0.0}, timeout=20) == 8
    except (snakepit.SnakepitError, OSError) as error:
        return type(error).__name__
    except BaseException as error:
        load.problems.append(f"opening ended with {error!r}")
        return "untyped"
    return "worked"


async def close_on_a_full_disk(folder: str) -> None:
    """The disk becomes full and stays so until the pool is closed."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        load = Load(pool)
        hoard = Path(folder, "hoard")
        hoard.mkdir()
        _fill(hoard)
        with trio.move_on_after(1):
            await load.run_beside(trio.sleep_forever)
        began = trio.current_time()
    seconds = trio.current_time() - began
    shutil.rmtree(hoard)
    _tell(outcomes=load.outcomes, problems=load.problems, seconds=seconds)


async def cleaned(what: str) -> None:
    """Somebody removes our folder, or all there are, again and again, and workers die."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        load = Load(pool)

        async def clean() -> None:
            for _ in range(3):
                await trio.sleep(0.2)
                folder = registry.runs_folder()
                for path in [folder] if what == "all" else list(folder.iterdir()):
                    shutil.rmtree(path, ignore_errors=True)
                _kill_all(pool)
                await trio.sleep(0.2)
                await pool.await_ready(BOUND)

        await load.run_beside(clean)
        await _ready_again(pool, load)
        runs = [run.is_alive for run in registry.runs()]
    _tell(outcomes=load.outcomes, problems=load.problems, runs=runs)


async def threads(number: str) -> None:
    """As many threads of the application as trio lets run wait for calls; the only worker dies."""
    results: list[int] = []

    def wait(token: int) -> None:
        args = {"token": token, "seconds": 0.0}
        results.append(trio.from_thread.run(lambda: pool.execute("work", args, timeout=None, retries=3)))

    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        _kill_all(pool)
        with trio.move_on_after(2 * BOUND):
            async with trio.open_nursery() as nursery:
                for token in range(int(number)):
                    nursery.start_soon(trio.to_thread.run_sync, wait, token)
        health = pool.get_health().status
        began = trio.current_time()
    right = sorted(results) == [7 * token + 1 for token in range(int(number))]
    _tell(done=len(results), right=right, health=health, seconds=trio.current_time() - began, problems=[])


if __name__ == "__main__":
    logging.getLogger("snakepit").setLevel(logging.CRITICAL)
    trio.run(globals()[sys.argv[1]], *sys.argv[2:])
