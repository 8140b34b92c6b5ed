"""What `snakepit top` and `snakepit dump` make of answers, whatever is in them; and the tasks that hosts tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st

from snakepit_trio._cli.dumping import _tasks, _with_application
from snakepit_trio._cli.hosts import CallLook, LeftOut, PoolLook, Seen, Stats, TaskLook, WorkerLook
from snakepit_trio._cli.samples import Sample, Usage, as_plain
from snakepit_trio._cli.top_view import _span, lines_of
from snakepit_trio._processes.registry import RunInfo
from snakepit_trio._util.task_tree import describe_tasks, describe_threads

OURS = ("/srv/app.py", 1, "main")
TRIO = ("/lib/trio/_core/_run.py", 1, "Runner.init")

names = st.text(max_size=80)
pids = st.none() | st.integers(2, 9)
seconds = st.floats(-1e6, 1e9)
workers = st.builds(WorkerLook, id=names, pid=pids, state=st.just("busy") | names)
times = {"on_worker": seconds, "queued": seconds, "time_left": st.none() | seconds}
calls = st.builds(CallLook, tool=names, worker_id=st.none() | names, pid=pids, state=names, **times)
looks = st.builds(
    PoolLook,
    pool=names,
    stats=st.builds(Stats, calls=st.integers(0, 10**12), uptime=st.floats(0, 1e9)),
    workers=st.lists(workers, max_size=40),
    calls=st.lists(calls, max_size=40),
    left_out=st.builds(LeftOut, workers=st.integers(0, 5), calls=st.integers(0, 5)),
)


def sample_of(look: PoolLook | None, name: str = "p", problem: str = "") -> Sample:
    run = RunInfo("1", Path("/nowhere"), name, 1, 0.0, is_alive=True, workers=())
    rates = {} if look is None else {"succeeded": 1.0, "failed": 0.0}
    return Sample(Seen(run, look, problem), rates, {2: Usage(50.0, 1 << 30)})


@given(st.lists(st.builds(sample_of, st.none() | looks, names, names), min_size=1, max_size=4), st.integers(1, 60))
def test_a_view_fits_its_terminal_and_has_no_control_characters(samples: list[Sample], height: int) -> None:
    lines = lines_of(samples, height)
    assert len(lines) <= height
    for line in [*lines, *lines_of(samples)]:
        assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in line.plain)
    assert len(as_plain(samples)) == len(samples)


def test_what_does_not_fit_is_counted() -> None:
    look = PoolLook(
        workers=[WorkerLook(id=f"w-{number}", pid=number, state="ready") for number in range(2, 102)],
        calls=[CallLook(id=number, tool="t") for number in range(100)],
    )
    look.workers[90].state = "busy"
    lines = [line.plain for line in lines_of([sample_of(look)], 24)]
    shown = sum(line.startswith("w-") for line in lines), sum(" t  " in line for line in lines)
    assert f"... {100 - shown[0]} more workers" in lines
    assert f"... {100 - shown[1]} more calls" in lines
    assert min(shown) >= 5
    assert lines[4].startswith("w-92 "), "busy workers come first"


def test_times_as_people_read_them() -> None:
    spans = {0.04: "0.0 s", 59.94: "59.9 s", 61: "1:01", -75: "-1:15", 3600: "1:00:00", 90061: "1 d 01:01"}
    assert {number: _span(number) for number in spans} == spans


leaves: st.SearchStrategy[tuple[bool, list[Any]]] = st.booleans().map(lambda ours: (ours, []))
trees = st.recursive(leaves, lambda below: st.tuples(st.booleans(), st.lists(below)))


def flat(tree: tuple[bool, list[Any]], depth: int = 0) -> list[tuple[int, bool, bool]]:
    """Depth, whether it is the application's, and whether it or one below is."""
    below = [each for child in tree[1] for each in flat(child, depth + 1)]
    return [(depth, tree[0], tree[0] or any(ours for _, ours, _ in below)), *below]


@given(trees)
def test_a_dump_keeps_tasks_of_the_application_and_those_above(tree: tuple[bool, list[Any]]) -> None:
    found = flat(tree)
    tasks = [
        TaskLook(name=str(number), depth=depth, nursery=min(depth, 1), frames=[OURS if ours else TRIO])
        for number, (depth, ours, _) in enumerate(found)
    ]
    kept = [str(number) for number, (_, _, is_kept) in enumerate(found) if is_kept]
    assert [task.name for task in _with_application(tasks)] == kept
    lines = [line.strip() for line in _tasks(tasks, has_all=False)]
    assert [line for line in lines if line.isdigit()] == kept


async def test_tasks_are_told_however_deep_and_many_they_are() -> None:
    deepest = trio.Event()

    async def nest(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            if depth:
                nursery.start_soon(nest, depth - 1)
            else:
                deepest.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nest, 200)
        await deepest.wait()
        tasks = describe_tasks()
        assert max(task["depth"] for task in tasks) >= 200
        for _ in range(2000):
            nursery.start_soon(trio.sleep_forever)
        assert len(describe_tasks()) == 2000
        nursery.cancel_scope.cancel()
        assert any(task["is_cancelled"] for task in describe_tasks())


async def test_threads_are_told_with_the_innermost_frame_last() -> None:
    def a_thread_of_ours() -> None:
        trio.from_thread.run(told.wait)

    told = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, a_thread_of_ours)
        while True:
            stacks = [[name for _, _, name in thread["frames"]] for thread in describe_threads()]
            mine = [stack for stack in stacks if any("a_thread_of_ours" in name for name in stack)]
            if mine and any(name.endswith("run") for name in mine[0][-4:]):
                break
            await trio.sleep(0.01)
        told.set()
    assert mine[0].index(next(name for name in mine[0] if "a_thread_of_ours" in name)) > 1
