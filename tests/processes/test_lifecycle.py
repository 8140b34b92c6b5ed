"""Opening, closing, dying and restarting: pools and their processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers import tools
from tests.helpers.workers import TOOLS, is_alive

ROOT = Path(__file__).parents[2]


# Starting.


@pytest.mark.parametrize(
    ("adapter", "exit_code", "line"),
    [
        ("BrokenImport", 1, "RuntimeError: the model file is missing"),
        ("ExitsAtStart", 42, "no licence"),
        ("NotThere", 1, "has no class NotThere"),
        ("Polite", 1, "cancel='politely' is invalid"),
    ],
)
async def test_a_worker_that_cannot_start_says_why(adapter: str, exit_code: int, line: str) -> None:
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(f"tests.helpers.start_tools:{adapter}"):
            pytest.fail("the block was entered")
    assert caught.value.exit_code == exit_code
    assert line in str(caught.value)
    assert (line in caught.value.last_words) == (exit_code == 1), "who calls os._exit can tell nothing more"
    assert any(line in printed for printed in caught.value.stderr_tail)
    assert any(line in note for note in caught.value.__notes__)


async def test_a_worker_that_is_not_ready_in_time() -> None:
    with pytest.raises(snakepit.WorkerStartError, match=r"was not ready within 0\.5 s"):
        async with snakepit.open_pool("tests.helpers.start_tools:SlowStart", start_timeout=0.5):
            pytest.fail("the block was entered")


async def test_an_interpreter_that_is_not_there() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="could not be started"):
        async with snakepit.open_pool(TOOLS, python="/no/such/python"):
            pytest.fail("the block was entered")


async def test_cancelling_the_start() -> None:
    with trio.move_on_after(0.3) as scope:
        async with snakepit.open_pool("tests.helpers.start_tools:SlowStart", shutdown_timeout=1):
            pytest.fail("the block was entered")
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers=0: give a whole number of at least 1"),
        ({"workers": True}, "workers=True: give"),
        ({"concurrency": "2"}, "concurrency='2': give a whole number from 1 to 100000"),
        ({"cancel_grace": -1}, "cancel_grace=-1: give seconds, more than 0"),
        ({"wrokers": 3}, "unexpected keyword argument 'wrokers': did you mean 'workers'"),
        ({"adapter": "no_colon"}, "write it as 'package.module:Class'"),
        ({"adapter": 3}, "adapter 3: give"),
    ],
)
async def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        async with snakepit.open_pool(**{"adapter": TOOLS, **settings}):  # type: ignore[arg-type]
            pytest.fail("the block was entered")


async def test_an_adapter_class_will_do() -> None:
    async with snakepit.open_pool(tools.Tools, workers=1) as pool:
        assert await pool.execute("add", {"a": 1}) == 2


async def test_the_adapter_from_the_environment_and_from_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from bridge_py import BaseAdapter, tool\n"
        "class Mine(BaseAdapter):\n    @tool\n    def who(self) -> str:\n        return 'mine'\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.snakepit]\nadapter = "mine:Mine"\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(inner)
    async with snakepit.open_pool(workers=1) as pool:
        assert await pool.execute("who") == "mine"
    monkeypatch.setenv("SNAKEPIT_ADAPTER", TOOLS)
    async with snakepit.open_pool(workers=1) as pool:
        assert await pool.execute("add", {"a": 1}) == 2
    monkeypatch.delenv("SNAKEPIT_ADAPTER")
    (tmp_path / "pyproject.toml").write_text("[tool.snakepit]\nadapter = 3\n")
    with pytest.raises(snakepit.UsageError, match=r"pyproject\.toml.*adapter is 3"):
        async with snakepit.open_pool():
            pytest.fail("the block was entered")


# Leaving.


class Mine(Exception):
    """An application's own."""


async def test_what_the_block_raises_leaves_as_itself() -> None:
    with pytest.raises(Mine):
        async with snakepit.open_pool(TOOLS):
            raise Mine


async def test_an_error_of_a_call_leaves_as_itself() -> None:
    with pytest.raises(snakepit.ToolError, match="hello"):
        async with snakepit.open_pool(TOOLS) as pool:
            await pool.execute("fail", {"text": "hello"})


async def test_a_cancelled_block() -> None:
    with trio.CancelScope() as scope:
        async with snakepit.open_pool(TOOLS) as pool:
            scope.cancel()
            await pool.execute("sleep", {"seconds": 60})
    assert scope.cancelled_caught


async def test_services_run_while_a_cancelled_body_unwinds() -> None:
    result = None
    with trio.CancelScope() as scope:
        async with snakepit.open_pool(TOOLS) as pool:
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    result = await pool.execute("add", {"a": 41})
    assert result == 42


async def test_calls_of_others_end_when_the_pool_closes(log: Path) -> None:
    async def call() -> None:
        with pytest.raises(snakepit.PoolClosed):
            await pool.execute("sleep_async", {"seconds": 60, "path": str(log)})

    async with trio.open_nursery() as nursery, snakepit.open_pool(TOOLS, workers=1, send_ahead=0) as pool:
        nursery.start_soon(call)
        nursery.start_soon(call)
        while not log.exists():
            await trio.sleep(0.005)
    with pytest.raises(snakepit.PoolClosed):
        await pool.execute("add", {"a": 1})
    with pytest.raises(snakepit.PoolClosed):
        await pool.await_ready()
    assert pool.list_workers() == []


async def test_closing_is_bounded_also_when_a_worker_is_stopped() -> None:
    async with snakepit.open_pool(TOOLS, shutdown_timeout=1.5) as pool:
        for worker in pool.list_workers():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)
        before = trio.current_time()
    assert trio.current_time() - before < 20


# Dying and being replaced.


@pytest.mark.parametrize(
    ("tool", "args", "exit_code", "text"),
    [
        ("exit", {"code": 7}, 7, "exit code 7"),
        ("segfault", {}, -signal.SIGSEGV, "SIGSEGV"),
    ],
)
async def test_a_dying_worker_fails_its_own_calls(
    tool: str, args: dict[str, object], exit_code: int, text: str
) -> None:
    async with snakepit.open_pool(TOOLS) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(_keep_adding, pool)
        with pytest.raises(snakepit.WorkerCrashed, match=text) as caught:
            await pool.execute(tool, args)
        assert caught.value.exit_code == exit_code
        if tool == "exit":
            assert "about to exit" in caught.value.stderr_tail
        await pool.await_ready(20)
        assert pool.get_stats().restarts == 1
        nursery.cancel_scope.cancel()


async def _keep_adding(pool: snakepit.Pool) -> None:
    number = 0
    while True:
        assert await pool.execute("add", {"a": number}) == number + 1
        number += 1


async def test_a_stream_of_a_dying_worker() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, pool.stream("count", {"n": 10**9}) as chunks:
        await anext(chunks)
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(snakepit.WorkerCrashed, match="SIGKILL"):
            async for _ in chunks:
                pass


@pytest.mark.slow
async def test_the_pool_heals_after_every_worker_was_killed_again_and_again() -> None:
    async with snakepit.open_pool(TOOLS) as pool:
        for turn in range(1, 4):
            for worker in pool.list_workers():
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
            while pool.get_stats().restarts < 2 * turn:
                await trio.sleep(0.01)
            await pool.await_ready(20)
        assert await pool.execute("add", {"a": 1}) == 2


async def test_await_ready_has_an_end() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        await pool.await_ready(1)
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("exit", {"code": 1})
        with pytest.raises(snakepit.PoolNotReady, match="1 of 1 workers"):
            await pool.await_ready(0.001)


# Living with others.


async def test_several_pools_in_one_program() -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1, name="a") as a,
        snakepit.open_pool(TOOLS, workers=1, name="b") as b,
    ):
        with pytest.raises(snakepit.WorkerCrashed, match="worker a-1"):
            await a.execute("exit", {"code": 1})
        assert await b.execute("add", {"a": 1}) == 2
        assert b.get_stats().restarts == 0


def test_run_as_script_returns_the_result() -> None:
    async def work(pool: snakepit.Pool) -> int:
        result = await pool.execute("add", {"a": 1})
        assert isinstance(result, int)
        return result

    assert snakepit.run_as_script(work, TOOLS, workers=1) == 2


@pytest.mark.slow
def test_two_programs_side_by_side(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            import snakepit_trio as snakepit
            from bridge_py import BaseAdapter, tool

            class Here(BaseAdapter):
                @tool
                def double(self, n: int) -> int:
                    return 2 * n

            async def work(pool):
                async with pool.map("double", ({"n": n} for n in range(1000))) as results:
                    return sum([result async for result in results])

            if __name__ == "__main__":
                print(snakepit.run_as_script(work, Here))
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    programs = [
        subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [program.communicate(timeout=240)[0] for program in programs] == ["999000\n", "999000\n"]


def test_workers_end_when_their_host_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "import trio, snakepit_trio as s\n"
        "async def work(pool):\n"
        "    print(*[w.pid for w in pool.list_workers()], flush=True)\n"
        "    await trio.sleep_forever()\n"
        "s.run_as_script(work)\n"
    )
    host = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert host.stdout is not None
    pids = [int(pid) for pid in host.stdout.readline().split()]
    assert len(pids) == 2
    host.kill()
    host.communicate()
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, pids))


def test_the_worker_side_imports_neither_trio_nor_the_host() -> None:
    code = (
        "import sys, pkgutil, importlib, bridge_py\n"
        "for m in pkgutil.walk_packages(bridge_py.__path__, 'bridge_py.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('trio', 'trio_asyncio', 'snakepit_trio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_public_names() -> None:
    assert sorted(snakepit.__all__) == snakepit.__all__
    for name in snakepit.__all__:
        assert getattr(snakepit, name) is not None
    assert attrs.has(snakepit.PoolConfig)


# Mapping.


async def test_map_in_order_and_as_they_come() -> None:
    async with snakepit.open_pool(TOOLS) as pool:
        async with pool.map("add", ({"a": n} for n in range(500)), ordered=True) as results:
            assert [result async for result in results] == list(range(1, 501))
        async with pool.map("add", ({"a": n} for n in range(500))) as results:
            assert sorted([result async for result in results]) == list(range(1, 501))

        async def numbers() -> AsyncIterator[dict[str, int]]:
            for number in range(10):
                await trio.lowlevel.checkpoint()
                yield {"a": number}

        async with pool.map("add", numbers(), ordered=True) as results:
            assert [result async for result in results] == list(range(1, 11))
        async with pool.map("add", []) as results:
            assert [result async for result in results] == []


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_draws_only_what_it_may_hold(ordered: bool) -> None:
    drawn = 0

    def numbers() -> object:
        nonlocal drawn
        while True:
            drawn += 1
            yield {"a": drawn}

    async with snakepit.open_pool(TOOLS) as pool:
        async with pool.map("add", numbers(), limit=5, ordered=ordered) as results:  # type: ignore[call-overload]
            for taken in range(20):
                await anext(results)
                await trio.testing.wait_all_tasks_blocked(0.001)
                assert drawn <= taken + 1 + 5
        assert pool.get_stats().running == 0


async def test_a_failure_in_a_map_is_raised_in_its_place() -> None:
    def sick() -> object:
        yield {"a": 1}
        yield {"a": 2}
        raise Mine

    async with snakepit.open_pool(TOOLS) as pool:
        seen = []
        with pytest.raises(snakepit.InvalidArguments):
            async with pool.map("add", [{"a": 1}, {"a": "x"}, {"a": 3}], ordered=True) as results:
                async for result in results:
                    seen.append(result)  # noqa: PERF401 - what comes before the error is tested
        assert seen == [2]
        with pytest.raises(Mine):
            async with pool.map("add", sick(), ordered=True) as results:  # type: ignore[call-overload]
                async for result in results:
                    seen.append(result)  # noqa: PERF401 - as above
        assert seen == [2, 2, 3]
        with pytest.raises(snakepit.UsageError, match="limit=0: give a whole number"):
            async with pool.map("add", [], limit=0):
                pytest.fail("the block was entered")


async def test_leaving_a_map_early_stops_its_calls(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    args: list[dict[str, object]] = [{"seconds": 0.0}, *[{"seconds": 60.0, "path": str(log)}] * 3]
    async with snakepit.open_pool(TOOLS) as pool:
        async with pool.map("sleep_async", args) as results:
            await anext(results)
        assert pool.get_stats().running == 0
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0
