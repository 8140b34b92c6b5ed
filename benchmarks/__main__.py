"""`make bench`: all peers, all figures, in paired rounds. Prints a table with ratios and writes JSON.

In each round the peers take turns, in an order that rotates, each in a fresh process. A figure is the median of
its rounds; a ratio is the median of the rounds' ratios, so that a machine whose speed drifts does not bend it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import ChainMap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .aims import AIMS
from .figures import FIGURES
from .peers import PEERS, Ours, OursOnRay, RayActors

LIBRARIES = (
    "trio",
    "trio-asyncio",
    "grpclib",
    "uvloop",
    "msgspec",
    "trio-parallel",
    "grpcio",
    "numpy",
    "pandas",
    "pyarrow",
)
MORE_IS_BETTER = ("calls/s", "chunks/s")
#: What to reach: a figure, the peer (None for the best one), ours as a multiple of theirs, and the words.
RATIOS: tuple[tuple[str, str | None, float, str], ...] = (
    ("p50 ms", "trio-parallel", 1.0, "latency at most trio-parallel's"),
    ("p99 ms", "trio-parallel", 1.2, "p99 at most 1.2 x trio-parallel's"),
    ("host CPU us", "trio-parallel", 1.0, "CPU time of the host less than trio-parallel's"),
    ("calls/s", None, 4.0, "throughput at least 4 x the best peer's"),
    ("chunks/s", "grpc.aio", 10.0, "streams at least 10 x grpc.aio's"),
    ("start of 2, s", None, 0.5, "start of 2 workers in half of the best peer's time"),
    ("start of 8, s", None, 0.5, "start of 8 workers in half of the best peer's time"),
)
Rounds = list[dict[str, dict[str, float]]]  # for each round, by peer, by figure


def main() -> None:
    """Measure, print, write."""
    options = _options()
    scale = 0.2 if options.quick else 1.0
    rounds = _measure(options.only, options.figures, 2 if options.quick else options.rounds, scale)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in _tables(rounds, options.only):
        console.print(table)
    for line in _reach(rounds):
        console.print(line, highlight=False)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": _machine(), "rounds": rounds}, indent=1))
    console.print(f"all rounds: {options.json}", highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds of a fifth of the work")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--figures", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/latest.json"))
    return parser.parse_args()


def _measure(names: list[str], figures: list[str], rounds: int, scale: float) -> Rounds:
    results: Rounds = []
    for number in range(rounds):
        found: dict[str, dict[str, float]] = {name: {} for name in names}
        for figure in figures:
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                _say(f"round {number + 1} of {rounds}: {figure}, {name}")
                found[name].update(_run(name, figure, scale))
        results.append(found)
    _say("")
    return results


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<80}\r", end="", file=sys.stderr, flush=True)


def _run(name: str, figure: str, scale: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.run_peer", name, figure, str(scale)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _tables(rounds: Rounds, names: list[str]) -> list[Table]:
    columns = list(dict.fromkeys(figure for each in rounds for found in each.values() for figure in found))
    ours = {title: [column for column in columns if column in aims] for title, aims in AIMS.items()}
    others = [column for column in columns if not any(column in aims for aims in AIMS.values())]
    values = [column for column in others if column.endswith(", ms")]
    groups = (
        ("Calls", names, [column for column in others if column not in values]),
        ("Values", names, values),
        *((title, [Ours.name], group) for title, group in ours.items()),
    )
    return [_table(rounds, peers, title, group) for title, peers, group in groups if group]


def _table(rounds: Rounds, names: list[str], title: str, columns: list[str]) -> Table:
    title = f"{title}: medians (lowest to highest), and below them ours as a multiple of theirs"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name in names:
        table.add_row(name, *(_cell(rounds, name, column) for column in columns))
    table.caption = "-: this peer does not do that. Ratios of rates: more is better for us; of times: less is better."
    return table


def _cell(rounds: Rounds, name: str, column: str) -> str:
    values = [each[name][column] for each in rounds if column in each[name]]
    if not values:
        return "-"
    text = f"{_number(statistics.median(values))} ({_number(min(values))} to {_number(max(values))})"
    ratio = _ratio(rounds, name, column)
    return text if ratio is None or name == Ours.name else f"{text}\n{ratio:.2f} x"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(rounds: Rounds, name: str, column: str, ours: str = Ours.name) -> float | None:
    """Ours as a multiple of theirs."""
    pairs = [(each.get(ours, {}).get(column), each.get(name, {}).get(column)) for each in rounds]
    ratios = [mine / theirs for mine, theirs in pairs if mine and theirs]
    return statistics.median(ratios) if ratios else None


def _reach(rounds: Rounds) -> list[str]:
    lines = []
    for column, peer, bound, aim in RATIOS:
        names = _others(rounds) if peer is None else [peer]
        ratios = [ratio for name in names if (ratio := _ratio(rounds, name, column))]
        if ratios:
            more = column in MORE_IS_BETTER
            found = min(ratios) if more else max(ratios)
            lines.append(_verdict(aim, found, found >= bound if more else found <= bound, " x"))
    return [*lines, *_reach_on_ray(rounds), *_reach_of_values(rounds), *_reach_of_ours(rounds)]


def _reach_on_ray(rounds: Rounds) -> list[str]:
    lines = []
    for column, bound, aim in (
        ("p50 ms", 1.0, "latency on Ray at most"),
        ("calls/s", 1.0, "throughput on Ray at least"),
    ):
        if ratio := _ratio(rounds, RayActors.name, column, OursOnRay.name):
            more = column in MORE_IS_BETTER
            lines.append(_verdict(f"{aim} that of Ray actors", ratio, ratio >= bound if more else ratio <= bound, " x"))
    return lines


def _reach_of_ours(rounds: Rounds) -> list[str]:
    lines = []
    for column, (aim, bound, more) in ChainMap(*AIMS.values()).items():
        found = _median(rounds, column)
        if found is not None and bound is not None:
            lines.append(_verdict(aim, found, found >= bound if more else found <= bound, ""))
    return lines


def _reach_of_values(rounds: Rounds) -> list[str]:
    lines = []
    for size, most in (("1 MB", 2.5), ("10 MB", 10)):
        if (time := _median(rounds, f"{size}, ms")) is not None:
            lines.append(_verdict(f"an array of {size} and back in at most {most} ms", time, time <= most, " ms"))
    ratios = [ratio for name in _others(rounds) if (ratio := _ratio(rounds, name, "10 MB, ms"))]
    if ratios:
        lines.append(_verdict("10 MB in 0.1 of the best peer's time", max(ratios), max(ratios) <= 0.1, " x"))
    if ratio := _ratio(rounds, "ProcessPoolExecutor", "frame, ms"):
        lines.append(_verdict("a frame 3 x faster than pickle", 1 / ratio, ratio <= 1 / 3, " x"))
    alone, beside = _median(rounds, "p99 alone, ms"), _median(rounds, "beside 1 GB, ms")
    if alone and beside:
        aim = "p99 beside 1 GB under 5 x that alone"
        lines.append(_verdict(aim, beside / alone, beside < 5 * alone, " x"))
    return lines


def _median(rounds: Rounds, column: str) -> float | None:
    values = [each[Ours.name][column] for each in rounds if column in each.get(Ours.name, {})]
    return statistics.median(values) if values else None


def _others(rounds: Rounds) -> list[str]:
    return [name for name in rounds[0] if not name.startswith(Ours.name)]


def _verdict(aim: str, value: float, reached: bool, unit: str) -> str:
    return f"{'reached' if reached else 'NOT reached':<12} {aim}: {_number(value)}{unit}"


def _machine() -> dict[str, Any]:
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


if __name__ == "__main__":
    main()
