"""The pytest plugin, in test runs of its own: pools as fixtures, the leak check, and marks."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

QUICK = """
from hypothesis import settings
settings.register_profile("quick", max_examples=10)
settings.load_profile("quick")
"""
CONFTEST = 'pytest_plugins = ["snakepit_trio.testing.pytest_plugin"]\n'
TOOLS = """
import asyncio, os
from bridge_py import BaseAdapter, tool

class Tools(BaseAdapter):
    @tool
    def add(self, a: int, b: int) -> int:
        return a + b

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    async def nap(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "awake"

class Others(BaseAdapter):
    @tool
    def add(self, a: str, b: str) -> str:
        return a + b
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with some tools, which has opted in."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(tools=TOOLS)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider -p no:cov --strict-markers")
    return pytester


def run(project: pytest.Pytester, code: str, *options: str) -> pytest.RunResult:
    """Run pytest on a test module."""
    project.makepyfile(test_it=textwrap.dedent(code))
    return project.runpytest_subprocess(*options)


def test_a_pool_as_the_marks_say(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        import os, pytest
        import snakepit_trio as snakepit
        from tools import Others, Tools

        pytestmark = [pytest.mark.trio, pytest.mark.snakepit(adapter=Tools, workers=3)]

        async def test_of_the_module(snakepit_pool):
            assert await snakepit_pool.execute("add", {"a": 1, "b": 2}) == 3
            assert snakepit_pool.get_stats().workers == 3
            assert await snakepit_pool.execute("pid") == os.getpid()

        @pytest.mark.snakepit(workers=1)
        async def test_of_its_own(snakepit_pool):
            assert snakepit_pool.get_stats().workers == 1
            assert await snakepit_pool.execute("add", {"a": 1, "b": 2}) == 3

        @pytest.mark.snakepit("tools:Tools", real=True, workers=1)
        async def test_real(snakepit_pool, worker_leak_check):
            assert await snakepit_pool.execute("pid") == snakepit_pool.list_workers()[0].pid != os.getpid()

        @pytest.mark.snakepit(adapter=Others)
        class TestOthers:
            async def test_texts(self, snakepit_pool):
                assert await snakepit_pool.execute("add", {"a": "x", "b": "y"}) == "xy"

        @pytest.mark.parametrize("workers", [
            pytest.param(1, marks=pytest.mark.snakepit(workers=1)),
            pytest.param(2, marks=pytest.mark.snakepit(workers=2)),
        ])
        @pytest.mark.parametrize("n", [4, 5])
        async def test_parametrized(snakepit_pool, workers, n):
            assert snakepit_pool.get_stats().workers == workers
            assert await snakepit_pool.execute("add", {"a": n, "b": 0}) == n

        @pytest.fixture
        async def sum_of_two(snakepit_pool):
            return await snakepit_pool.execute("add", {"a": 1, "b": 1})

        async def test_a_fixture_that_uses_it(sum_of_two):
            assert sum_of_two == 2

        class TestOverridden:
            @pytest.fixture
            def snakepit_settings(self, snakepit_settings, tmp_path):
                return snakepit_settings | {"name": tmp_path.name}

            async def test_name(self, snakepit_pool, tmp_path):
                assert snakepit_pool.get_info()["name"] == tmp_path.name
        """,
    )
    found.assert_outcomes(passed=10)


def test_time_jumps_if_the_test_names_the_clock(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ntrio_mode = true\n")
    found = run(
        project,
        """
        import pytest, trio
        import snakepit_trio as snakepit
        from tools import Tools

        pytestmark = pytest.mark.snakepit(adapter=Tools)

        async def test_before(autojump_clock, snakepit_pool):
            assert await snakepit_pool.execute("nap", {"seconds": 1000.0}, timeout=2000) == "awake"
            assert trio.current_time() >= 1000

        async def test_behind(snakepit_pool, autojump_clock):
            with pytest.raises(snakepit.CallTimeout):
                await snakepit_pool.execute("nap", {"seconds": 3000.0}, timeout=2000)
            assert trio.current_time() >= 2000

        @pytest.fixture
        def clock(autojump_clock):
            return autojump_clock

        async def test_by_another_name(snakepit_pool, clock):
            await snakepit_pool.execute("nap", {"seconds": 1000.0}, timeout=2000)
        """,
        "--timeout=30",
    )
    found.assert_outcomes(passed=3)


def test_what_is_wrong_with_marks_is_said(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        import pytest
        from tools import Others, Tools

        @pytest.mark.trio
        async def test_without_mark(snakepit_pool):
            raise AssertionError("it ran")

        @pytest.mark.trio
        @pytest.mark.snakepit(Tools, Others)
        async def test_two(snakepit_pool):
            raise AssertionError("it ran")

        @pytest.mark.trio
        @pytest.mark.snakepit(adapter=Tools, wokrers=2)
        async def test_setting(snakepit_pool):
            raise AssertionError("it ran")

        @pytest.mark.snakepit(adapter=Tools)
        def test_sync(snakepit_pool):
            raise AssertionError("it ran")
        """,
    )
    found.assert_outcomes(errors=3, failed=1)
    assert "it ran" not in found.stdout.str()
    found.stdout.fnmatch_lines_random(
        [
            "*UsageError: test_it.py::test_without_mark: snakepit_pool does not know *: write @pytest.mark.snakepit(*",
            "*UsageError: test_it.py::test_two: the mark snakepit takes one adapter, not 2*",
            "*UsageError: open_pool got an unexpected keyword argument 'wokrers': did you mean 'workers'*",
            "*Trio fixtures can only be used by Trio tests*",
        ]
    )


def test_a_failure_leaves_no_pool(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        import pytest, trio
        import snakepit_trio as snakepit

        pytestmark = [pytest.mark.trio, pytest.mark.snakepit("tools:Tools", real=True, workers=1)]
        pools = []

        async def test_fails(worker_leak_check, snakepit_pool):
            pools.append(snakepit_pool)
            raise ValueError("mine")

        async def test_fails_inside_of_a_call(worker_leak_check, snakepit_pool, nursery):
            nursery.start_soon(snakepit_pool.execute, "nap", {"seconds": 1000.0})
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("mine too")

        @pytest.fixture
        async def broken(snakepit_pool):
            raise OSError("no such device")

        async def test_of_a_broken_fixture(worker_leak_check, broken):
            raise AssertionError("it ran")

        async def test_all_is_closed():
            with pytest.raises(snakepit.PoolClosed):
                await pools[0].execute("pid")
        """,
    )
    found.assert_outcomes(failed=3, passed=1)
    assert "it ran" not in found.stdout.str().replace('raise AssertionError("it ran")', "")
    assert "left behind" not in found.stdout.str()
    found.stdout.fnmatch_lines(["FAILED*ValueError('mine')*", "FAILED*KeyError('mine too')*", "FAILED*no such device*"])


def test_the_leak_check_says_what_is_left(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        import os, subprocess, sys, threading
        from pathlib import Path
        import pytest
        from snakepit_trio._processes.registry import ProcessRegistry

        @pytest.fixture
        def end():
            todo = []
            yield todo.append
            for each in todo:
                each()

        def test_leaves_all(end, worker_leak_check, tmp_path):
            child = subprocess.Popen([sys.executable, "-c", "input()", "marker"], stdin=subprocess.PIPE)
            end(lambda: child.communicate(b""))
            left = os.open(tmp_path / "left.txt", os.O_CREAT)
            end(lambda: os.close(left))
            event = threading.Event()
            thread = threading.Thread(target=event.wait, name="my thread")
            thread.start()
            end(lambda: (event.set(), thread.join()))
            run = ProcessRegistry.open("my pool")
            end(run.close)
            print("child", child.pid)

        def test_nothing(worker_leak_check):
            subprocess.run([sys.executable, "-c", ""], check=True)
            assert worker_leak_check.left() == []

        def test_fails_by_itself(worker_leak_check):
            raise ValueError("mine")
        """,
        "-rA",
    )
    found.assert_outcomes(passed=2, failed=1, errors=1)
    found.stdout.fnmatch_lines_random(
        [
            "the test has left behind:",
            "  process *, pid *: *-c input() marker",
            "  descriptor *: */left.txt",
            "  thread my thread",
            "  file */snakepit-*",
        ]
    )


def test_slow_tests_are_left_out_if_wanted(project: pytest.Pytester) -> None:
    code = """
        import pytest

        @pytest.mark.snakepit_slow
        class TestSlow:
            def test_slow(self):
                pass

        def test_quick():
            pass
        """
    run(project, code).assert_outcomes(passed=2)
    project.runpytest_subprocess("--snakepit-fast").assert_outcomes(passed=1, deselected=1)


def test_it_is_there_for_those_only_who_ask_for_it(project: pytest.Pytester) -> None:
    project.makeconftest("")
    found = run(project, "import sys\ndef test_it():\n    assert not any('snakepit' in name for name in sys.modules)\n")
    found.assert_outcomes(passed=1)
    by_option = project.runpytest_subprocess("-p", "snakepit_trio.testing.pytest_plugin", "--markers")
    by_option.stdout.fnmatch_lines(["@pytest.mark.snakepit(adapter=MyTools, *", "@pytest.mark.snakepit_slow: *"])


@pytest.mark.parametrize(("missing", "module"), [("hypothesis", "strategies"), ("pytest_trio", "pytest_plugin")])
def test_a_missing_package_is_named(missing: str, module: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
import snakepit_trio
try:
    import snakepit_trio.testing.{module}
except ImportError as error:
    assert isinstance(error, snakepit_trio.UsageError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    package = missing.replace("_", "-")
    assert done.stdout == f"the package {package} is missing: pip install 'snakepit-trio[testing]'\n"


def test_testing_itself_takes_neither_pytest_nor_hypothesis() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(["pytest", "_pytest", "pytest_trio", "hypothesis"])
import snakepit_trio.testing
print(snakepit_trio.testing.InMemory.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "InMemory\n"


def test_the_code_in_the_docs_runs(project: pytest.Pytester) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL)
    tests = {"test_shop.py", "test_machine.py", "test_properties.py", "test_with_pytest.py"}
    assert {"my_app.py", "shop.py", "conftest.py"} | tests == {name for name, _ in blocks}
    for name, code in blocks:
        project.path.joinpath(name).write_text(code)
    with project.path.joinpath("conftest.py").open("a") as conftest:
        conftest.write(QUICK)
    found = project.runpytest_subprocess(*sorted(tests))
    found.assert_outcomes(passed=7)
