"""The output of `snakepit demo`: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from .progress import Progress
from .rendering import Console, Table, Text
from .screen import Screen, has_screen

if TYPE_CHECKING:
    from rich.console import Group

_FRAMES_A_SECOND: Final = 8
_LINE_EVERY: Final = 2.0
_STYLES: Final = {"ready": "green", "busy": "green", "starting": "yellow", "draining": "red", "stopped": "red"}


async def show(progress: Progress, console: Console) -> None:
    """Show the progress until cancelled."""
    if not has_screen(console):
        await _show_lines(progress, console)
    screen = Screen(console, lambda _: _picture(progress))
    with screen.shown():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.follow)
            while True:
                await trio.sleep(1 / _FRAMES_A_SECOND)
                screen.refresh()


async def _show_lines(progress: Progress, console: Console) -> None:
    while True:
        await trio.sleep(_LINE_EVERY)
        console.print(_line(progress), soft_wrap=True)


def report(progress: Progress, console: Console, top: int) -> None:
    """Print the tables, the totals, and how the run went."""
    console.print()
    console.print(_functions(progress, "complexity", "length", "The most complex functions", top))
    console.print()
    console.print(_functions(progress, "length", "complexity", "The longest functions", top))
    console.print()
    console.print("Totals", style="bold")
    for name, value in progress.totals().items():
        number = f"{value:,}" if isinstance(value, int) else value
        console.print(f"  {name:<25}{number:>17}")
    console.print()
    for path, problem in sorted(progress.failed.items()):
        console.print(f"{progress.name_of(path)} was given up: {problem}", style="red", soft_wrap=True)
    _print_ending(progress, console)


def _print_ending(progress: Progress, console: Console) -> None:
    rate = progress.done / progress.seconds if progress.seconds else 0.0
    killed, again = progress.killed, progress.run_again
    console.print(
        f"{progress.seconds:.1f} s, {rate:,.0f} files/s, {counted(killed, 'worker')} killed, "
        f"{counted(again, 'call')} run again",
        soft_wrap=True,
    )
    left = progress.left_over()
    pids = f": {', '.join(map(str, left))}" if left else ""
    console.print(f"{len(left)} worker processes left{pids}", style="red" if left else "", soft_wrap=True)


def _picture(progress: Progress) -> Group:
    from rich.console import Group
    from rich.progress_bar import ProgressBar

    # The bar does not end its line, but a grid does.
    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=len(progress.files), completed=progress.done))
    line = Text(_line(progress), no_wrap=True, overflow="ellipsis")
    return Group(line, bar, *(_worker(worker) for worker in progress.workers))


def _line(progress: Progress) -> str:
    total, done = len(progress.files), progress.done
    rate = done / progress.elapsed if progress.elapsed > 0 else 0.0
    parts = [f"{done:,}/{total:,} files", f"{rate:,.0f} files/s"]
    if rate and done < total:
        parts.append(f"{(total - done) / rate:.0f} s left")
    if progress.killed:
        parts.append(f"{counted(progress.killed, 'worker')} killed")
    return ", ".join(parts)


def _worker(worker: Any) -> Text:
    memory = "" if worker.resident_bytes is None else f"{worker.resident_bytes / 2**20:7.1f} MiB"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{worker.id:<8} pid {worker.pid or '-':<8} ")
    text.append(f"{worker.state:<9}", style=_STYLES.get(worker.state, ""))
    return text.append(f"{worker.calls_served:>6} calls {memory}")


def _functions(progress: Progress, key: str, other: str, title: str, top: int) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(key, justify="right", no_wrap=True)
    table.add_column(other, justify="right", no_wrap=True)
    table.add_column("function")
    table.add_column("file")
    for path, function in progress.functions(key, top):
        place = f"{progress.name_of(path)}:{function['line']}"
        # On a narrow terminal the columns of names are cut off, and never wrap.
        names = [Text(name, no_wrap=True, overflow="ellipsis") for name in (function["name"], place)]
        table.add_row(str(function[key]), str(function[other]), *names)
    return table


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
