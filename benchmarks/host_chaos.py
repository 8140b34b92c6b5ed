"""Trouble of the host's own, for `make chaos`: no descriptors, a full disk, a folder removed, a blocked loop."""

from __future__ import annotations

import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes.registry import FOLDER_VARIABLE

TOOLS: Final = "benchmarks.chaos_tools:Tools"
_AT_A_TIME: Final = 4  # pools


@attrs.frozen
class Disk:
    """Where the folder of runs is. `is_own`: a small disk that can be filled."""

    folder: Path
    is_own: bool


@contextmanager
def small_disk() -> Iterator[Disk]:
    """A disk of 1 MiB for the folder of runs; an ordinary folder where nothing can be mounted."""
    folder = tempfile.mkdtemp(prefix="sp-")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=2000,mode=700", "none", folder]
    try:
        is_own = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_own = False
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = folder
    try:
        yield Disk(Path(folder), is_own)
    finally:
        os.environ.pop(FOLDER_VARIABLE)
        if before is not None:
            os.environ[FOLDER_VARIABLE] = before
        if is_own:
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


class Trouble:
    """Brings a host into trouble again and again. `done` counts what was done to it."""

    def __init__(self, done: Counter[str], dice: random.Random, disk: Disk) -> None:
        self._done = done
        self._dice = dice
        self._disk = disk

    async def run(self) -> None:
        """Until cancelled; each trouble is over before the next one comes."""
        full_or_removed = self._fill_disk if self._disk.is_own else self._remove_folder
        troubles = [self._few_descriptors, full_or_removed, self._remove_folder, self._block_loop]
        while True:
            await trio.sleep(self._dice.uniform(0.2, 1.0))
            trouble = self._dice.choice(troubles)
            await trouble()
            self._done[trouble.__name__.strip("_").replace("_", " ")] += 1

    async def _few_descriptors(self) -> None:
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + self._dice.randint(0, 8), usual[1]))
        try:
            await trio.sleep(self._dice.uniform(0.1, 1.0))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)

    async def _fill_disk(self) -> None:
        hoard = self._disk.folder / ".hoard"
        try:
            _fill(hoard)
            await trio.sleep(self._dice.uniform(0.1, 1.0))
        finally:
            _remove(hoard)

    async def _remove_folder(self) -> None:
        for path in self._disk.folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    async def _block_loop(self) -> None:
        time.sleep(self._dice.uniform(0.5, 2.0))  # noqa: ASYNC251 - the trouble that is meant


def _fill(hoard: Path) -> None:
    try:
        hoard.mkdir(exist_ok=True)
        for size in (65536, 4096, 1):
            for number in range(4000):
                with (hoard / f"{size}-{number}").open("wb", buffering=0) as file:
                    if file.write(bytes(size)) < size:
                        break
    except OSError:
        return


def _remove(hoard: Path) -> None:
    shutil.rmtree(hoard, ignore_errors=True)


async def block_the_loop(seconds: float) -> tuple[int, float]:
    """Block the host's loop again and again beside four workers that are well and have little to do.

    Returns how many of them were replaced, and for how many seconds the loop was blocked.
    """
    blocked = 0.0
    async with snakepit.open_pool(TOOLS, workers=4, ping_interval=0.2, ping_timeout=0.3) as pool:
        deadline = trio.current_time() + seconds
        while trio.current_time() < deadline:
            pause = random.uniform(0.3, 2.0)
            time.sleep(pause)  # noqa: ASYNC251 - what is meant
            blocked += pause
            assert await pool.execute("work", {"token": 1, "seconds": 0.0}) == 8
            await trio.sleep(random.uniform(0.0, 0.3))
        return pool.get_stats().restarts, blocked


async def count_ends(number: int) -> Counter[int | None]:
    """Open, use and close pools of four workers on a busy machine, until so many have ended. Counts exit codes."""
    codes: Counter[int | None] = Counter()
    left = math.ceil(number / 4)
    with _busy_machine():
        async with trio.open_nursery() as nursery:

            async def use_pools() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    codes.update(await _use_pool())

            for _ in range(_AT_A_TIME):
                nursery.start_soon(use_pools)
    return codes


async def _use_pool() -> list[int | None]:
    codes: list[int | None] = []
    async with snakepit.open_pool(TOOLS, workers=4, shutdown_timeout=60.0) as pool, trio.open_nursery() as nursery:
        pool.events.attach("worker.ended", lambda event: codes.append(event.metadata["exit_code"]))
        for token in range(8):
            nursery.start_soon(pool.execute, "work", {"token": token, "seconds": 0.001})
            nursery.start_soon(pool.execute, "echo", {"data": bytes(2**16)})
    return codes


@contextmanager
def _busy_machine() -> Iterator[None]:
    """As many programs that do nothing but compute as there are processors."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()
