"""Tries broken bytes on everything that reads bytes of others: `make fuzz`, or `python -m property_tests.fuzz --help`.

Each input has to be read, or refused by a documented error, within two seconds. The process that reads has to live on.
Inputs come in runs. A run is a process of its own; its seed says which messages Hypothesis draws for it and how they
are broken, so that an input is made again by `--replay TARGET SEED NUMBER`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import mmap
import os
import random
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
_A_RUN: Final = 25_000  # inputs
_ADDRESS_SPACE: Final = 8 << 30  # bytes; whoever asks for more gets an error, as on a machine that is full
_CPU_SECONDS: Final = 2  # that one input may take
_RUN_SECONDS: Final = 900  # that a run may take; no loop in a library ends it before
_MOST_FAULTS: Final = 5  # of a run; one more and it ends
_DRAWN: Final = 150  # valid messages of each kind
_NUMBER_BYTES: Final = 8


class TooLong(BaseException):
    """An input has taken too long."""


class Run(NamedTuple):
    """Some inputs of a target, with numbers from `first` on. Hypothesis draws `drawn` valid messages of each kind."""

    target: str
    seed: int
    inputs: int
    first: int = 0
    drawn: int = _DRAWN


class Report(NamedTuple):
    """What a run has found: how many inputs it has tried and were refused, and the faults, as texts."""

    target: str
    tried: int
    refused: int
    faults: list[str]


def runs_of(target: str, inputs: int, seed: int, drawn: int = _DRAWN) -> list[Run]:
    """Divide inputs into runs, each with a seed of its own."""
    return [
        Run(target, seed + index, min(_A_RUN, inputs - first), drawn=drawn)
        for index, first in enumerate(range(0, inputs, _A_RUN))
    ]


def carry_out(run: Run) -> Report:
    """Carry out a run in a process of its own, and wait for it."""
    with tempfile.TemporaryFile() as note:
        note.truncate(_NUMBER_BYTES)
        command = [sys.executable, "-m", "property_tests.fuzz", "--run", str(note.fileno()), *map(str, run)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                pass_fds=[note.fileno()],
                capture_output=True,
                text=True,
                timeout=_RUN_SECONDS,
                check=False,
            )
            problem = done.stderr if done.returncode else ""
            faults = done.stdout.split("\0")
        except subprocess.TimeoutExpired:
            problem, faults = f"it has not ended after {_RUN_SECONDS} s", []
        number = int.from_bytes(os.pread(note.fileno(), _NUMBER_BYTES, 0), "little")
    if problem or not faults:
        fault = f"{_name(run, number)}: the process has ended, or hangs\n{problem[-4_000:]}"
        return Report(run.target, number - run.first + 1, 0, [fault])
    tried, refused = map(int, faults.pop().split())
    return Report(run.target, tried, refused, faults)


def _name(run: Run, number: int) -> str:
    return f"--replay {run.target} {run.seed} {number} --drawn {run.drawn}"


def _read_all(run: Run, note: IO[bytes] | int) -> Iterator[str]:
    """Read the inputs of a run; yields the faults, and at last how many inputs were tried and refused."""
    from .fuzz_targets import TARGETS

    target = TARGETS[run.target](run.seed, run.drawn)
    signal.signal(signal.SIGPROF, _too_long)
    refused = faults = tried = 0
    with mmap.mmap(note if isinstance(note, int) else note.fileno(), _NUMBER_BYTES) as current:
        for number in range(run.first, run.first + run.inputs):
            current[:] = number.to_bytes(_NUMBER_BYTES, "little")
            tried += 1
            chance = random.Random(f"{run.seed} {number}")
            parts = target.broken(chance)
            signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
            try:
                target.read(parts, chance)
            except target.errors:
                refused += 1
            except BaseException as error:  # noqa: ASYNC103 - panics of libraries are none
                signal.setitimer(signal.ITIMER_PROF, 0)
                if isinstance(error, KeyboardInterrupt):
                    raise
                yield _describe(run, number, parts, error)
                faults += 1
                if faults > _MOST_FAULTS:
                    break
            signal.setitimer(signal.ITIMER_PROF, 0)
    yield f"{tried} {refused}"


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TooLong(f"it has not ended after {_CPU_SECONDS} s of the processor's time")


def _describe(run: Run, number: int, parts: tuple[bytes, ...], error: BaseException) -> str:
    trace = "".join(traceback.format_exception(error))
    return f"{_name(run, number)}\n{trace[-3_000:]}{[part[:1_000] for part in parts]!r}"


def _run_here(arguments: Sequence[str]) -> None:
    descriptor, target, *numbers = arguments
    run = Run(target, *map(int, numbers))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    print("\0".join(_read_all(run, int(descriptor))), end="")


def _replay(run: Run) -> None:
    with tempfile.TemporaryFile() as note:
        note.truncate(_NUMBER_BYTES)
        for text in _read_all(run, note):
            print(text)


def fuzz(runs: Sequence[Run], processes: int) -> dict[str, Report]:
    """Carry out runs, some at a time; returns a report for each target."""
    found: dict[str, Report] = {}
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        for report in pool.map(carry_out, runs):
            _, tried, refused, faults = found.get(report.target, Report(report.target, 0, 0, []))
            found[report.target] = Report(
                report.target, tried + report.tried, refused + report.refused, faults + report.faults
            )
            print(*report.faults, f"  {line_of(report)}", sep="\n", flush=True)
    return found


def line_of(report: Report) -> str:
    """One line about a target."""
    return (
        f"{report.target}: {report.tried:,} inputs, {report.refused:,} refused by a documented error, "
        f"{len(report.faults)} faults"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the fuzzers; returns the exit code."""
    from .fuzz_targets import SHARES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=[], help=f"some of: {', '.join(SHARES)}")
    parser.add_argument("--inputs", type=int, default=sum(SHARES.values()), help="for all targets together")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 40))
    parser.add_argument("--drawn", type=int, default=_DRAWN, help="valid messages of each kind")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", nargs=3, metavar=("TARGET", "SEED", "NUMBER"), help="read one input again")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given: Any = parser.parse_args(arguments)
    if given.run:
        _run_here(given.run)
        return 0
    if given.replay:
        target, seed, number = given.replay
        _replay(Run(target, int(seed), 1, int(number), given.drawn))
        return 0
    shares = {name: share for name, share in SHARES.items() if not given.targets or name in given.targets}
    part = given.inputs / sum(shares.values())
    runs = [
        run for name, share in shares.items() for run in runs_of(name, round(share * part), given.seed, given.drawn)
    ]
    print(f"--seed {given.seed}: {sum(run.inputs for run in runs):,} inputs in {len(runs)} runs", flush=True)
    reports = fuzz(runs, given.processes)
    print(*map(line_of, reports.values()), sep="\n")
    return 1 if any(report.faults for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
