"""What `snakepit dump` prints: the host's tasks and threads, and the workers' threads, each with its stack."""

from __future__ import annotations

import linecache
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import trio

from bridge_py.wire.readable import readable
from snakepit_trio._processes.registry import RunInfo, WorkerEntry
from snakepit_trio._processes.stacks import NoStacks, stacks_of

from .hosts import CallLook, Frame, HostLook, NoAnswer, PoolLook, TaskLook, ask, look_at, runs_of

_PATIENCE: Final = 2.0  # seconds
_PY_SPY_TAKES: Final = 30.0
_LARGEST_SOURCE: Final = 4 << 20  # bytes
_OF_TRIO: Final = re.compile(r"/trio/_")
_OF_OTHERS: Final = re.compile(r"/(trio/_|trio_asyncio/_|snakepit_trio/(_|state/|launchers/|telemetry/))")
_IDLE: Final = "WorkerThread._work"  # the innermost frame of a thread of trio that has nothing to do
_NURSERY: Final = "NurseryManager.__aexit__"


async def dump_of(pid: int, has_all: bool) -> tuple[list[str], bool]:
    """The lines, and whether the host has answered. `has_all` shows the pool's own tasks too. Raises `NoPool`."""
    runs = runs_of(pid)
    lines, is_whole = await _host(runs, has_all)
    for run in runs:
        lines += await _workers(run)
    return lines, is_whole


async def _host(runs: Sequence[RunInfo], has_all: bool) -> tuple[list[str], bool]:
    """What the loops of the host tell, each once: several pools may have the same, and some may not answer."""
    head = f"host {runs[0].host_pid}"
    looks: dict[int, HostLook] = {}  # by loop
    problems: set[str] = set()

    async def add(run: RunInfo) -> None:
        try:
            look = await _host_look(run)
        except NoAnswer as error:
            problems.add(f"{head}: {readable(str(error))}")
        else:
            looks[look.loop] = look

    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(add, run)
    lines = _loops(head, [look for _, look in sorted(looks.items())], has_all)
    if problems:
        lines += [*sorted(problems), *await _of_py_spy(runs[0].host_pid)]
    return [*lines, ""], not problems


async def _host_look(run: RunInfo) -> HostLook:
    look = await ask(run, "host", HostLook, _PATIENCE)
    if look.error:
        raise NoAnswer(look.error)
    return look


def _loops(head: str, looks: Sequence[HostLook], has_all: bool) -> list[str]:
    lines: list[str] = []
    for look in looks:
        lines.append(f"{head}: tasks of trio{f' in thread {look.loop}' if len(looks) > 1 else ''}")
        lines += _tasks(look.tasks, has_all)
    return [*lines, *(_threads(looks[0]) if looks else ())]


def _tasks(found: Sequence[TaskLook], has_all: bool) -> Iterator[str]:
    tasks = found if has_all else _with_application(found)
    strange = _OF_TRIO if has_all else _OF_OTHERS
    begun: list[int] = []  # by depth: the nursery of the task above whose heading was printed
    for task in tasks:
        indent = "  " * (2 * task.depth + 1)
        del begun[task.depth + 1 :]
        begun += [0] * (task.depth + 1 - len(begun))
        if task.nursery != begun[task.depth]:
            begun[task.depth] = task.nursery
            yield f"{indent[:-2]}nursery {task.nursery}{' (cancelled)' if task.is_cancelled else ''}:"
        yield f"{indent}{readable(task.name)}"
        outside = _outside(task.frames, strange)
        yield from _frames(task.frames[:outside], f"{indent}    ")
        if outside < len(task.frames):
            yield f"{indent}    awaits {_told_of(task.frames[outside])}"
    if len(tasks) < len(found):
        yield f"  and {len(found) - len(tasks)} tasks of trio and of pools: --all shows them"


def _with_application(tasks: Sequence[TaskLook]) -> Sequence[TaskLook]:
    """The tasks in which code of the application runs, with those above them."""
    kept: list[TaskLook] = []
    depth = 0  # of the task that was kept last
    for task in reversed(tasks):
        if task.depth == depth - 1 or any(not _OF_OTHERS.search(file) for file, _, _ in task.frames):
            kept.append(task)
            depth = task.depth
    return kept[::-1]


def _outside(frames: Sequence[Frame], strange: re.Pattern[str]) -> int:
    """How many frames come before those of other packages that end a stack."""
    number = len(frames)
    while number and strange.search(frames[number - 1][0]):
        number -= 1
    return number


def _told_of(frame: Frame) -> str:
    """What a task awaits: the function of another package that it has called."""
    file, _, function = frame
    if function == _NURSERY:
        return "the tasks of its nursery"
    return readable(f"{'trio' if _OF_TRIO.search(file) else 'snakepit_trio'}'s {function}")


def _threads(look: HostLook) -> Iterator[str]:
    for thread in look.threads:
        if thread.frames and thread.frames[-1][2] == _IDLE:
            continue
        yield f"host {look.host}: thread {readable(thread.name)}"
        yield from _frames(thread.frames, "    ")


async def _workers(run: RunInfo) -> list[str]:
    seen = await look_at(run, _PATIENCE)
    workers = [worker for worker in run.workers if worker.pid is not None]
    found: dict[int, list[str]] = {}

    async def add(number: int, worker: WorkerEntry) -> None:
        found[number] = [*_head(worker, run, seen.look), *await _stacks(worker), ""]

    async with trio.open_nursery() as nursery:
        for number, worker in enumerate(workers):
            nursery.start_soon(add, number, worker)
    return [line for number in range(len(workers)) for line in found[number]]


def _head(worker: WorkerEntry, run: RunInfo, look: PoolLook | None) -> Iterator[str]:
    states = [] if look is None else [each.state for each in look.workers if each.pid == worker.pid]
    state = f", {states[0]}" if states else ""
    yield f"worker {readable(worker.id)} of pool {readable(run.pool)!r}, pid {worker.pid}{state}"
    for call in () if look is None else look.calls:
        if call.pid == worker.pid:
            yield f"  {_told(call)}"
    if look is None:
        yield "  its calls are not known: the host does not answer"


def _told(call: CallLook) -> str:
    session = "" if call.session_id is None else f", session {readable(call.session_id)}"
    return f"call {call.id} of {readable(call.tool)}: {call.state}, since {call.on_worker:.1f} s{session}"


async def _stacks(worker: WorkerEntry) -> list[str]:
    assert worker.pid is not None
    try:
        stacks = await stacks_of(worker.pid, worker.start_ticks)
    except NoStacks as error:
        return [f"  {error}", *await _of_py_spy(worker.pid)]
    lines: list[str] = []
    for stack in reversed(stacks):  # the main thread first
        lines += [f"  thread {stack.thread}", *_frames(stack.frames, "    ")]
    return lines


def _frames(frames: Sequence[Frame], indent: str) -> Iterator[str]:
    for file, line, function in frames:
        yield f'{indent}File "{readable(file)}", line {line}, in {readable(function)}'
        if source := _source(file, line):
            yield f"{indent}  {readable(source)}"


def _source(file: str, line: int) -> str:
    # The name comes from another process: it may be that of a pipe, or of a device.
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_SOURCE:
        return ""
    return linecache.getline(file, line).strip()[:200]


async def _of_py_spy(pid: int) -> list[str]:
    """The stacks that py-spy reads from the outside, or how to get them."""
    lines = [f"  {_state(pid)}"]
    command = f"py-spy dump --pid {pid}"
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        return [*lines, f"  for its stacks: pip install py-spy, then `{command}`"]
    with trio.move_on_after(_PY_SPY_TAKES):
        try:
            done = await trio.run_process(
                [program, "dump", "--pid", str(pid)],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            return [*lines, f"  {program} cannot be run: {error.strerror or error}"]
        if done.returncode:
            lines.append(f"  `{command}` has failed; it may need the rights of root:")
        return [*lines, *(f"  {readable(line)}" for line in done.stdout.decode("utf-8", "replace").splitlines())]
    return [*lines, f"  `{command}` has not ended in {_PY_SPY_TAKES:g} s"]


def _state(pid: int) -> str:
    """What the kernel says that a process does."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "its process has ended"
    found = re.search(r"^State:\s+(\S.*)$", text, re.MULTILINE)
    state = found[1] if found else "unknown"
    hint = f"; `kill -CONT {pid}` lets it go on" if state[:1] in "tT" else ""
    return f"its state: {state}{hint}"
