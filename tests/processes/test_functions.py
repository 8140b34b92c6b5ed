"""Functions of the application in workers: `run`, `iterate`, `map`, and what comes back."""

from __future__ import annotations

import functools
import math
import os
import random
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import outcome
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers import functions as f
from tests.helpers.functions import Colour, Line, Pair, Point, Point3, Refusal

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=["processes", "memory"])
async def pool(request: pytest.FixtureRequest) -> Any:
    launcher = InMemory() if request.param == "memory" else None
    async with snakepit.open_pool(f.Tools, workers=1, launcher=launcher) as pool:
        yield pool


# What can be called.


async def test_functions_are_run_by_themselves(pool: snakepit.Pool) -> None:
    assert await pool.run(f.add, 1) == 2
    assert await pool.run(f.add, 1, b=5) == 6
    assert await pool.run(f.waited, 0, (1, (2,))) == (1, (2,))
    assert await pool.run(math.sqrt, 16) == 4.0
    assert await pool.run(divmod, 7, 2) == (3, 1)
    assert await pool.run(str.upper, "abc") == "ABC"
    assert await pool.run(dict.fromkeys, ["a"], 1) == {"a": 1}
    assert await pool.run(random.randint, 5, 5) == 5  # a method of an object that its module has
    assert await pool.run(Fraction, 1, 3) == Fraction(1, 3)
    assert (await pool.run(np.add, np.ones(3), 1)).tolist() == [2, 2, 2]
    assert await pool.run(functools.partial(f.same, 1, a=2), 3, b=4) == ((1, 3), {"a": 2, "b": 4})


async def test_values_keep_their_types(pool: snakepit.Pool) -> None:
    value = ((1, [2, (3,)]), {"a": (4, {5}), (6, 7): b"8"}, frozenset({9}), None, math.inf, 1 << 80)
    assert await pool.run(f.same, *value, key=(1,)) == (value, {"key": (1,)})


async def test_objects_come_back_as_what_they_are(pool: snakepit.Pool) -> None:
    assert await pool.run(f.moved, Point(1, 2), 3) == Point(4, 2)
    assert await pool.run(f.moved, Point3(1, 2, 3), 1) == Point3(2, 2, 3)  # a subclass is not cut down
    assert await pool.run(f.boxed, Point(1)) == f.Box([Line((Point(1), Point3(1, 2, 3)), Colour.BLUE)], "box")
    assert await pool.run(f.boxed, None) is None
    assert await pool.run(f.paired, Point(1), Point3(2)) == Pair(Point(1), Point3(2))
    names = await pool.run(f.kinds, Point(1), Point(2), Point3(3), colour=Colour.BLUE, a=Line(()), b=Line(()))
    assert names == ["Point", "Point", "Point3", "Colour", "Line", "Line"]
    assert await pool.run(Point, 1, 2) == Point(1, 2)
    assert await pool.run(f.without_hint, Point(5)) == {"x": 5, "y": 0}


async def test_an_object_that_does_not_fit_its_hint_is_told(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.DecodeError, match="does not fit the hint of what .*wrong_hint' returns"):
        await pool.run(f.wrong_hint)
    with pytest.raises(snakepit.InvalidArguments, match="argument 'point' does not fit its hint") as caught:
        await pool.run(f.moved, Colour.RED, 1)  # type: ignore[call-overload]
    assert caught.value.parameter == "point"


async def test_tools_are_called_by_their_methods(pool: snakepit.Pool) -> None:
    assert await pool.run(f.Tools.double, 4) == await pool.run(f.Tools.double, n=4) == 8
    assert await pool.run(f.Tools.mirror, Point(1, 2), colour=Colour.BLUE) == {"BLUE": Point(2, 1)}
    assert await pool.execute(f.Tools.mirror, {"point": Point(1, 2)}) == {"RED": Point(2, 1)}
    assert await pool.execute("mirrored", {"point": Point(1, 2)}) == {"RED": {"x": 2, "y": 1}}
    assert await pool.execute("mirrored", {"point": Point(1, 2)}, returns=dict[str, Point]) == {"RED": Point(2, 1)}
    async with pool.iterate(f.Tools.count, 2) as chunks:
        assert [chunk async for chunk in chunks] == [Point(0), Point(1)]
    async with pool.stream(f.Tools.count, {"to": 2}) as chunks:
        assert [chunk async for chunk in chunks] == [Point(0), Point(1)]
    with pytest.raises(snakepit.InvalidArguments, match="double: too many positional arguments"):
        await pool.run(f.Tools.double, 1, 2)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: 1, "workers cannot import .*<lambda>: it is a lambda"),
        ([].append, "workers cannot import list.append: .* a method of an object"),
        ("f", "'f' is no function; a tool is called by its name"),
        (3, "3 is no function"),
        (f.points, "points yields its results one by one: use iterate"),
        (f.points_later, "use iterate in place of run"),
    ],
)
async def test_what_cannot_be_called_is_told_before_anything_runs(
    pool: snakepit.Pool, function: Any, message: str
) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        await pool.run(function)
    assert await pool.run(f.add, 1) == 2


async def test_iterate_takes_everything_that_yields(pool: snakepit.Pool) -> None:
    async with pool.iterate(f.points, 2) as points:
        assert [point async for point in points] == [Point(0), Point(1)]
    async with pool.iterate(f.points_later, to=2) as points:
        assert [point async for point in points] == [Point(0), Point(1)]
    async with pool.iterate(range, 3) as numbers:
        assert [number async for number in numbers] == [0, 1, 2]
    with pytest.raises(snakepit.UsageError, match="is a coroutine function, which yields nothing"):
        pool.iterate(f.waited, 0, 0)  # type: ignore[call-overload]


async def test_a_caller_of_tools_cannot_run_functions(pool: snakepit.Pool) -> None:
    for name in ("snakepit:run", "snakepit:run_each", "snakepit:iterate"):
        with pytest.raises(snakepit.UnknownTool, match="functions are called with run and iterate"):
            await pool.execute(name, {"function": "os:getpid", "args": [], "kwargs": {}})
    with pytest.raises(snakepit.UnknownTool):
        async with pool.stream("snakepit:iterate", {"function": "builtins:range", "args": [3], "kwargs": {}}):
            pass
    with pytest.raises(snakepit.UsageError, match="is a function, and no tool: call it with run"):
        await pool.execute(f.add, {"a": 1})  # type: ignore[arg-type, type-var]


# What functions raise.


async def test_an_exception_is_raised_as_itself(pool: snakepit.Pool) -> None:
    with pytest.raises(Refusal, match="3: no") as caught:
        await pool.run(f.refuse)
    error = caught.value
    assert (error.code, error.why, error.args, error.__notes__) == (3, "no", ("3: no",), ["a note"])
    cause = error.__cause__
    assert isinstance(cause, snakepit.ToolError)
    assert "raise refusal from error\n" in cause.remote_traceback
    assert "helpers/functions.py" in cause.remote_traceback
    assert "executor.py" not in cause.remote_traceback
    assert repr(cause.__cause__) == "KeyError('missing')" == repr(error.__context__)


async def test_groups_keep_their_members(pool: snakepit.Pool) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await pool.run(f.refuse_several)
    first, (more) = caught.value.exceptions
    assert isinstance(first, Refusal)
    assert first.code == 1
    assert isinstance(more, ExceptionGroup)
    key, missing = more.exceptions
    assert repr(key) == "KeyError('k')"
    assert isinstance(missing, FileNotFoundError)
    assert missing.filename == "f"


@pytest.mark.parametrize(
    ("function", "kind"),
    [(f.raise_local, "raise_local.<locals>.Local"), (f.raise_unsendable, "ValueError"), (f.leave, "SystemExit"),
     (f.stop, "StopIteration")],
)  # fmt: skip
async def test_an_exception_that_cannot_be_made_again_is_a_tool_error(
    pool: snakepit.Pool, function: Any, kind: str
) -> None:
    with pytest.raises(snakepit.ToolError) as caught:
        await pool.run(function)
    assert caught.value.type.endswith(kind)


async def test_execute_raises_tool_errors_and_run_the_exceptions_themselves(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.ToolError, match="Refusal: 1: tool"):
        await pool.execute(f.Tools.refuse)
    with pytest.raises(Refusal):
        await pool.run(f.Tools.refuse)


async def test_values_before_the_exception_of_a_generator_are_delivered(pool: snakepit.Pool) -> None:
    taken = []
    with pytest.raises(Refusal, match="2: enough"):
        async with pool.iterate(f.refusing_after, 2) as numbers:
            async for number in numbers:
                taken.append(number)  # noqa: PERF401 - it raises in the middle
    assert taken == [0, 1]


# When a call is over.


async def test_a_cancelled_function_is_over(tmp_path: Path) -> None:
    async with snakepit.open_pool(f.Tools, workers=1) as pool:
        path = str(tmp_path / "log")
        with trio.move_on_after(0.3):
            await pool.run(f.sleep_and_note, 5, path)
        with pytest.raises(snakepit.CallTimeout):
            await pool.options(timeout=0.2).run(f.sleep_and_note, 5, path)
        async with pool.iterate(f.endless, path) as numbers:
            assert await anext(numbers) == 1
        assert Path(path).read_text() == "closed\n"
        assert await pool.run(f.add, 1) == 2


async def test_a_crash_fails_the_call_that_ran_and_retries_run_it_again(tmp_path: Path) -> None:
    async with snakepit.open_pool(f.Tools, workers=2) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="functions:die"):
            await pool.run(f.die)
        assert await pool.options(retries=1).run(f.add, 1) == 2


# Many calls.


async def test_map_keeps_the_order_of_its_items(pool: snakepit.Pool) -> None:
    progress: list[tuple[int, int | None]] = []
    for chunksize in (1, 3):
        progress.clear()
        async with pool.map(
            f.add, range(10), chunksize=chunksize, on_progress=lambda *told: progress.append(told)
        ) as results:
            assert [result async for result in results] == list(range(1, 11))
        assert progress[-1] == (10, 10)
        async with pool.map(f.add, range(10), chunksize=chunksize, ordered=False) as results:
            assert sorted([result async for result in results]) == list(range(1, 11))
        async with pool.map(f.moved_by_one, [Point(1), Point3(2, 3, 4)], chunksize=chunksize) as points:
            assert [point async for point in points] == [Point(2), Point3(3, 3, 4)]
        async with pool.map(f.later, iter([1, 2]), chunksize=chunksize) as results:
            assert [result async for result in results] == [(1,), (2,)]


@pytest.mark.parametrize("chunksize", [1, 2, 50])
async def test_pairs_hold_results_and_errors(pool: snakepit.Pool, chunksize: int) -> None:
    async with pool.map(f.odd_one_refused, range(6), pairs=True, chunksize=chunksize) as results:
        found = [pair async for pair in results]
    assert [item for item, _ in found] == list(range(6))
    for item, result in found:
        if item % 2:
            assert isinstance(result, outcome.Error)
            assert isinstance(result.error, Refusal)
            assert result.error.code == item
        else:
            assert result.unwrap() == item * item


async def test_a_failed_item_raises_where_its_result_would_have_come(pool: snakepit.Pool) -> None:
    for chunksize in (1, 4):
        taken = []
        with pytest.raises(Refusal, match="1: odd"):
            async with pool.map(f.odd_one_refused, range(6), chunksize=chunksize) as results:
                async for result in results:
                    taken.append(result)  # noqa: PERF401 - it raises in the middle
        assert taken == [0]


async def test_an_error_of_the_source_comes_after_its_items(pool: snakepit.Pool) -> None:
    def sick() -> Any:
        yield 1
        raise OSError("sick")

    for pairs in (False, True):
        for chunksize in (1, 3):
            taken = []
            with pytest.raises(OSError, match="sick"):
                async with pool.map(f.add, sick(), pairs=pairs, chunksize=chunksize) as results:
                    async for result in results:
                        taken.append(result)  # noqa: PERF401 - it raises in the middle
            assert len(taken) == 1


async def test_wrong_arguments_of_map_are_told(pool: snakepit.Pool) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"chunksize": 0}, "chunksize=0"),
        ({"chunksize": 2, "function": "double"}, "chunksize= is for functions"),
        ({"chunksize": 2, "function": f.Tools.double}, "chunksize= is for functions"),
        ({"on_progress": 3}, "on_progress=3"),
        ({"on_progress": trio.sleep}, "is a coroutine function, which nobody awaits"),
        ({"retries": -1}, "retries=-1"),
        ({"timeout": "1"}, "timeout='1'"),
    ]
    for wrong, message in cases:
        function: Any = wrong.pop("function", f.add)
        with pytest.raises(snakepit.UsageError, match=message):
            async with pool.map(function, [1], **wrong) as results:
                await anext(results)


async def test_progress_that_raises_ends_the_map(pool: snakepit.Pool) -> None:
    def told(_done: int, _total: int | None) -> None:
        raise OSError("no room for progress")

    with pytest.raises(OSError, match="no room for progress"):
        async with pool.map(f.add, range(10), on_progress=told) as results:
            async for _ in results:
                pass
    assert await pool.run(f.add, 1) == 2


# Defaults, sessions, initializers.


async def test_options_hold_for_calls_that_say_nothing_else(pool: snakepit.Pool) -> None:
    calls = pool.options(timeout=0.1)
    with pytest.raises(snakepit.CallTimeout):
        await calls.run(f.waited, 60, 0)
    assert await calls.options(timeout=60).run(f.waited, 0.2, 1) == 1
    assert await calls.execute("double", {"n": 1}, timeout=60) == 2
    wrongs: list[Any] = [{"timeout": -1}, {"session": 3}, {"retries": "x"}]
    for wrong in wrongs:
        with pytest.raises(snakepit.UsageError):
            pool.options(**wrong)


async def test_a_session_keeps_its_functions_with_one_worker() -> None:
    async with snakepit.open_pool(f.Tools, workers=2) as pool, pool.session(affinity="strict") as session:
        pids = {await session.run(os.getpid) for _ in range(5)}
        async with session.map(f.same_pid, range(3)) as results:
            pids |= {pid async for pid in results}
        async with session.iterate(f.pids, 2) as results:
            pids |= {pid async for pid in results}
        assert len(pids) == 1
        await pool.sessions.delete_session(session.id)
        with pytest.raises(snakepit.SessionNotFound):
            await session.run(os.getpid)


async def test_a_context_runs_functions_in_a_pool_of_its_own() -> None:
    async with snakepit.Context() as context:
        assert await context.run(os.getpid) != os.getpid()
        async with context.iterate(f.points, 1) as points:
            assert [point async for point in points] == [Point(0)]


async def test_sessions_and_contexts_map_in_their_own_session(pool: snakepit.Pool) -> None:
    async with pool.session() as session, snakepit.Context(pool) as context:
        for calls in (session, context):
            async with calls.map(f.add, [1, 2], chunksize=2) as results:
                assert [result async for result in results] == [2, 3]
            with pytest.raises(snakepit.UsageError, match="session='other': these calls are in session"):
                async with calls.map(f.add, [1], session="other"):
                    pass


@pytest.mark.parametrize("memory", [False, True])
async def test_each_worker_calls_the_initializer_once(memory: bool, tmp_path: Path) -> None:
    f._given.clear()
    path = str(tmp_path / "starts")
    first = functools.partial(f.remember, path=path)
    launcher = InMemory() if memory else None
    async with snakepit.open_pool(workers=1, initializer=first, initargs=(Point(1), (2, 3)), launcher=launcher) as pool:
        assert await pool.run(f.remembered) == [{"x": 1, "y": 0}, (2, 3)]
        if not memory:
            with pytest.raises(snakepit.WorkerCrashed):
                await pool.run(f.die)
            await pool.await_ready()
            assert await pool.run(f.remembered) == [{"x": 1, "y": 0}, (2, 3)]
    assert Path(path).read_text() == "started\n" * (1 if memory else 2)
    async with snakepit.open_pool(workers=1, initializer=f.remember_later, initargs=[4]) as pool:
        assert await pool.run(f.remembered) == [4]


async def test_an_initializer_that_fails_is_why_the_pool_does_not_open() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="Refusal: 7: because"):
        async with snakepit.open_pool(initializer=f.fail_to_start, initargs=("because",)):
            pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initializer": "f"}, "initializer='f': give a function"),
        ({"initializer": lambda: 1}, "workers cannot import"),
        ({"initargs": (1,)}, "initargs= is for initializer="),
        ({"initializer": f.add, "initargs": 3}, "initargs=3: give a tuple"),
        ({"initializer": f.add, "initargs": "ab"}, "initargs='ab': give a tuple"),
        ({"initializer": f.add, "initargs": (object(),)}, r"initargs.args\[0\]: an object of type builtins.object"),
    ],
)
async def test_a_wrong_initializer_is_told(settings: Any, message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        async with snakepit.open_pool(**settings):
            pass


# Where functions are.


async def test_a_module_that_workers_cannot_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with snakepit.open_pool(workers=1) as pool:
        # The workers have started, so they do not have the folder.
        (tmp_path / "late_module.py").write_text("def late(): return 1\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        import late_module  # type: ignore[import-not-found]

        with pytest.raises(snakepit.InvalidCall, match="the worker cannot import 'late_module'"):
            await pool.run(late_module.late)
    del sys.modules["late_module"]


async def test_workers_of_other_programs_run_no_functions() -> None:
    worker = snakepit.StdioJson(str(ROOT / "tests/helpers/stdio_worker.py"), executable=sys.executable)
    async with snakepit.open_pool(worker, workers=1) as pool:
        with pytest.raises(snakepit.UsageError, match="have tools, and no functions"):
            await pool.run(f.add, 1)
    with pytest.raises(snakepit.UsageError, match="have tools, and no functions"):
        async with snakepit.open_pool(worker, initializer=f.add):
            pass
