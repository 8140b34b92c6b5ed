"""What `snakepit top` shows: lines of text, cut to the size of the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridge_py.wire.readable import readable

from .hosts import CallLook, PoolLook, WorkerLook
from .rendering import Text
from .samples import Sample, Usage

_STYLES: Final = {"ready": "green", "busy": "green", "spare": "green", "starting": "yellow", "draining": "yellow"}
_STARTED: Final = ("running", "stopping")
_NAME: Final = 20  # characters
_WORKERS_SHARE: Final = 0.5  # of the lines of a pool, if they do not all fit
_OTHER_LINES: Final = 7  # of a pool: its head, two headings, what is left out


def lines_of(samples: Sequence[Sample], height: int | None = None) -> list[Text]:
    """The lines for the pools, at most `height` if that is given."""
    room = None if height is None else max(_OTHER_LINES + 4, height // max(1, len(samples)))
    lines = [line for sample in samples for line in [*_pool(sample, room), Text()]][:-1]
    if height is None or len(lines) <= height:
        return lines
    return [*lines[: height - 1], _line(f"... {len(lines) - height + 1} more lines: make the terminal larger", "dim")]


def _pool(sample: Sample, room: int | None) -> list[Text]:
    seen, look = sample.seen, sample.seen.look
    head = [_head(sample)]
    if look is None:
        head.append(_line(_plain(seen.problem, 200), "bold red"))
    else:
        head += _counts(look, sample.rates)
    calls = [] if look is None else sorted(look.calls, key=lambda call: -(call.on_worker or call.queued / 1e6))
    most_workers, most_calls = _shares(len(sample.workers), len(calls), room)
    return [*head, *_workers(sample, most_workers), *_calls(calls, look, most_calls)]


def _shares(workers: int, calls: int, room: int | None) -> tuple[int, int]:
    """How many workers and how many calls are shown."""
    if room is None or workers + calls + _OTHER_LINES <= room:
        return workers, calls
    room -= _OTHER_LINES
    of_workers = min(workers, max(int(room * _WORKERS_SHARE), room - calls))
    return of_workers, max(0, room - of_workers)


def _head(sample: Sample) -> Text:
    run, look = sample.seen.run, sample.seen.look
    line = _line(f"{_plain(run.pool)}", "bold")
    line.append(f"  host {run.host_pid}", "default")
    usage = sample.usage.get(run.host_pid, Usage())
    line.append(f" (cpu {_percent(usage.cpu)}, {_size(usage.memory)}, answers in {1000 * sample.seen.seconds:.0f} ms)")
    if look is not None:
        line.append(f"  up {_span(look.stats.uptime)}, {look.stats.workers} workers x {look.concurrency}")
    return line


def _counts(look: PoolLook, rates: dict[str, float]) -> list[Text]:
    stats = look.stats
    now = f"{stats.running} running, {stats.queued} queued"
    rate = f", {rates['succeeded']:,.1f}/s succeeded, {rates['failed']:,.1f}/s failed" if rates else ""
    since = [
        f"{number:,} {name}"
        for name, number in (
            ("calls", stats.calls),
            ("failed", stats.failed),
            ("cancelled", stats.cancelled),
            ("timed out", stats.timed_out),
            ("crashed", stats.crashed),
            ("retried", stats.retried),
            ("restarts", stats.restarts),
            ("recycled", stats.recycled),
        )
        if number or name == "calls"
    ]
    return [_line(now + rate), _line("since its start: " + ", ".join(since))]


def _workers(sample: Sample, most: int) -> list[Text]:
    look = sample.seen.look
    left_out = len(sample.workers) - most + (0 if look is None else look.left_out.workers)
    heading = f"{'worker':<{_NAME}} {'pid':>8} {'state':<9} {'cpu':>6} {'memory':>10} {'calls':>8}  running"
    busy_first = sorted(sample.workers, key=lambda worker: worker.state != "busy") if left_out else sample.workers
    by_worker: dict[tuple[str | None, int | None], list[CallLook]] = {}
    for call in () if look is None else look.calls:
        by_worker.setdefault((call.worker_id, call.pid), []).append(call)
    rows = [_worker(worker, sample.usage, by_worker.get((worker.id, worker.pid), ())) for worker in busy_first[:most]]
    return [_line(heading, "dim"), *rows, *_more(left_out, "workers")]


def _worker(worker: WorkerLook, usage: dict[int, Usage], calls: Sequence[CallLook]) -> Text:
    used = Usage() if worker.local_pid is None else usage.get(worker.local_pid, Usage())
    line = _line(f"{_plain(worker.id, _NAME):<{_NAME}} {worker.pid or '-':>8} ")
    line.append(f"{_plain(worker.state, 9):<9}", _STYLES.get(worker.state, "red"))
    line.append(f" {_percent(used.cpu):>6} {_size(worker.memory or used.memory):>10} {worker.calls_served:>8}")
    running = [call for call in calls if worker.pid is not None and call.state in _STARTED]
    if worker.node is not None:
        line.append(f"  on {_plain(worker.node, 40)}")
    if worker.missed_pings:
        line.append(f"  {worker.missed_pings} pings missed", "red")
    if running:
        first = max(running, key=lambda call: call.on_worker)
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        line.append(f"  {_plain(first.tool, 40)} {_span(first.on_worker)}{more}")
    return line


def _calls(calls: Sequence[CallLook], look: PoolLook | None, most: int) -> list[Text]:
    if look is None or not calls:
        return []
    heading = f"{'call':>8} {'tool':<24} {'state':<8} {'worker':<{_NAME}} {'elapsed':>9} {'left':>9}  session"
    rows = [_call(call) for call in calls[:most]]
    return [_line(heading, "dim"), *rows, *_more(len(calls) - most + look.left_out.calls, "calls")]


def _call(call: CallLook) -> Text:
    elapsed = call.queued if call.worker_id is None else call.on_worker
    left = "-" if call.time_left is None else _span(call.time_left)
    where = _plain(call.worker_id or "-", _NAME)
    session = _plain(call.session_id or "-", 24)
    what = f"{call.id:>8} {_plain(call.tool, 24):<24} {_plain(call.state, 8):<8} {where:<{_NAME}}"
    return _line(f"{what} {_span(elapsed):>9} {left:>9}  {session}")


def _more(number: int, noun: str) -> list[Text]:
    return [_line(f"... {number:,} more {noun}", "dim")] if number > 0 else []


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _plain(text: str, most: int = 60) -> str:
    """A name in one line."""
    text = readable(text.replace("\n", " ").replace("\t", " "))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _size(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.0f} MiB"


def _span(seconds: float) -> str:
    """A time as people read it: `0.4 s`, `3:05`, `2:00:01`, `3 d 02:00`."""
    if abs(seconds) < 60:
        return f"{seconds:.1f} s"
    sign, whole = "-" if seconds < 0 else "", int(abs(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{sign}{days} d {hours:02}:{rest // 60:02}"
    return f"{sign}{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{sign}{rest // 60}:{rest % 60:02}"
