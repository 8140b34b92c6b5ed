"""How `snakepit demo` looks: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from typing import Any, Final

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .demo import Progress

_FRAMES_A_SECOND: Final = 8
_LINE_EVERY: Final = 2.0


async def show(progress: Progress, console: Console) -> None:
    """Show the progress until cancelled."""
    if not console.is_terminal:
        while True:
            await trio.sleep(_LINE_EVERY)
            console.print(_line(progress), highlight=False)
    with Live(_picture(progress), console=console, auto_refresh=False) as live:
        try:
            while True:
                await trio.sleep(1 / _FRAMES_A_SECOND)
                live.update(_picture(progress), refresh=True)
        finally:
            live.update(_picture(progress), refresh=True)


def report(progress: Progress, console: Console, top: int) -> None:
    """Print the tables, the totals, and how the run went."""
    root = os.path.commonpath([os.path.dirname(path) for path in progress.files])
    console.print(_functions(progress, "complexity", f"The {top} most complex functions", root, top))
    console.print(_functions(progress, "length", f"The {top} longest functions", root, top))
    console.print("Totals", style="bold")
    for name, value in progress.totals().items():
        number = f"{value:,}" if isinstance(value, int) else value
        console.print(f"  {name + ':':<26}{number:>20}", highlight=False)
    for path in progress.failed:
        console.print(f"given up, its workers were killed each time: {path}", style="red", soft_wrap=True)
    rate = len(progress.records) / progress.seconds if progress.seconds else 0
    console.print(
        f"{progress.seconds:.1f} s, {rate:,.0f} files/s, {progress.killed} workers killed, "
        f"{progress.run_again} calls run again",
        highlight=False,
    )
    left = progress.left_over()
    names = f": {', '.join(map(str, left))}" if left else ""
    console.print(f"{len(left)} worker processes left{names}", highlight=False)


def _picture(progress: Progress) -> RenderableType:
    return Group(_bar(progress), *(_worker(worker) for worker in progress.workers))


def _bar(progress: Progress) -> RenderableType:
    bar = ProgressBar(total=len(progress.files), completed=progress.done, width=40)
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, _line(progress))
    return row


def _line(progress: Progress) -> str:
    seconds = progress.seconds or trio.current_time() - progress.began
    rate = progress.done / seconds if seconds > 0 else 0.0
    left = len(progress.files) - progress.done
    eta = f", {left / rate:.0f} s left" if rate and left else ""
    killed = f", {progress.killed} killed" if progress.killed else ""
    return f"{progress.done}/{len(progress.files)} files, {rate:,.0f}/s{eta}{killed}"


def _worker(worker: Any) -> Text:
    memory = "" if worker.resident_bytes is None else f"{worker.resident_bytes / 2**20:6.1f} MiB"
    text = f"  {worker.id:<8} pid {worker.pid or '-':<8} {worker.state:<9} {worker.calls_served:>6} calls {memory}"
    return Text(text, style="red" if worker.state in ("starting", "stopped", "draining") else "")


def _functions(progress: Progress, key: str, title: str, root: str, top: int) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(key, justify="right")
    table.add_column("length" if key == "complexity" else "complexity", justify="right")
    table.add_column("function", overflow="fold")
    table.add_column("file", overflow="fold")
    other = "length" if key == "complexity" else "complexity"
    for path, function in progress.functions(key, top):
        place = f"{os.path.relpath(path, root)}:{function['line']}"
        table.add_row(str(function[key]), str(function[other]), function["name"], place)
    return table
