"""Notebooks and prompts: a real Jupyter kernel, IPython, the REPL of trio, and programs from standard input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
LONGEST = 120  # seconds
FUNCTIONS = """
import os, time, trio
import snakepit_trio as snakepit

class Point:
    def __init__(self, x):
        self.x = x

class Refused(Exception):
    pass

def moved(point):
    return Point(point.x + 1)

def refuse():
    raise Refused("no")

"""
MAIN = """
async def main():
    async with snakepit.open_pool(workers=1, pickle=True) as pool:
        point = await pool.run(moved, Point(1))
        print(type(point) is Point, point.x)
        try:
            await pool.run(refuse)
        except Refused as error:
            print("refused:", error)
        async with pool.map(lambda x: moved(Point(x)).x, range(3)) as results:
            print([result async for result in results])

"""
PRINTED = ["True 2", "refused: no", "[1, 2, 3]"]
PLAIN = """
async def plain():
    async with snakepit.open_pool(workers=1) as pool:
        await pool.run(moved, Point(1))

"""


class Kernel:
    """A kernel of Jupyter."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client
        self.process = psutil.Process(self._hear())

    def _hear(self) -> Any:
        assert self._client.stdout is not None
        return json.loads(self._client.stdout.readline())

    def do(self, *what: str) -> Any:
        """Have tests/helpers/notebook.py do something; returns its answer."""
        assert self._client.stdin is not None
        self._client.stdin.write(json.dumps(what) + "\n")
        self._client.stdin.flush()
        return self._hear()

    def run(self, cell: str) -> str:
        """Execute a cell, and return what it prints, or its error."""
        return str(self.do("run", cell))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    folders = dict.fromkeys(("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"), str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **folders}
    command = [sys.executable, str(ROOT / "tests/helpers/notebook.py")]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        found = Kernel(client)
        try:
            yield found
        finally:
            assert client.stdin is not None
            client.stdin.close()
            assert client.wait(LONGEST) == 0
            assert ended([found.process])


def ended(processes: list[psutil.Process]) -> bool:
    """Wait until processes have ended."""
    _, alive = psutil.wait_procs(processes, timeout=LONGEST)
    return not alive


def test_cells_of_a_notebook(kernel: Kernel) -> None:
    kernel.run(FUNCTIONS + MAIN + PLAIN)
    # The kernel's asyncio loop runs in this thread.
    assert kernel.run("trio.run(main)").splitlines() == PRINTED
    changed = kernel.run("def moved(point): return Point(point.x + 10)\ntrio.run(main)")
    assert changed.splitlines() == ["True 11", "refused: no", "[10, 11, 12]"]
    assert kernel.run("import asyncio\nawait asyncio.to_thread(trio.run, main)").splitlines()[0] == "True 11"
    told = kernel.run("trio.run(plain)")
    assert told == (
        "UsageError: moved was defined interactively; put it into a module. open_pool(pickle=True) sends it"
    )
    told = kernel.run("async with snakepit.open_pool(workers=1) as pool: pass")
    assert told.startswith("UsageError: snakepit-trio runs in trio, and this code does not: call trio.run(main)")
    assert kernel.run("%autoawait trio") == ""
    cell = "async with snakepit.open_pool(workers=1, pickle=True) as pool: print((await pool.run(moved, Point(1))).x)"
    assert kernel.run(cell) == "11\n"
    assert kernel.process.children(recursive=True) == []


def test_a_cell_is_interrupted_and_a_kernel_is_killed(kernel: Kernel) -> None:
    kernel.run(FUNCTIONS)
    kernel.run("""
async def sleep():
    async with snakepit.open_pool(workers=2, pickle=True) as pool:
        print(await pool.run(lambda: os.getpid()))
        await pool.run(lambda: time.sleep(600))
""")
    assert kernel.do("interrupt", "trio.run(sleep)").endswith("KeyboardInterrupt: ")
    assert kernel.process.children(recursive=True) == []
    assert kernel.run("print(1)") == "1\n"
    kernel.do("begin", "trio.run(sleep)")
    until = time.monotonic() + LONGEST
    while len(found := kernel.process.children(recursive=True)) < 3:  # a keeper, and two workers
        assert time.monotonic() < until
        time.sleep(0.05)
    kernel.do("kill")
    assert ended(found)


def run_prompt(command: list[str], typed: str, folder: Path) -> str:
    """Type into a prompt, and return all that it prints, without colours."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder), "PYTHON_COLORS": "0"}
    done = subprocess.run(
        [sys.executable, *command], check=False, input=typed, cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LONGEST,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def check_prompt(printed: str) -> None:
    """Expect what MAIN prints, and then what PLAIN raises."""
    before, _, after = printed.partition("(the next one is refused)")
    for line in PRINTED:
        assert line in before, printed
    assert re.search(r"UsageError: .*moved.*open_pool\(pickle=True\) sends it", after), printed


ENTERED = FUNCTIONS + MAIN + PLAIN
AWAITED = ENTERED + 'await main()\nprint("(the next one is refused)")\nawait plain()\n'


def test_the_prompt_of_trio(tmp_path: Path) -> None:
    typed = re.sub(r"\n\n(?=    )", "\n", AWAITED)  # an empty line ends a block
    check_prompt(run_prompt(["-m", "trio"], typed, tmp_path))


def test_the_prompt_of_ipython(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    typed = re.sub(r"\n\n(?=    )", "\n", "%autoawait trio\n" + AWAITED)
    command = ["-m", "IPython", "--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor"]
    check_prompt(run_prompt(command, typed, tmp_path))


@pytest.mark.parametrize("command", [["-"], ["-q", "-i"]])
def test_standard_input(command: list[str], tmp_path: Path) -> None:
    typed = re.sub(r"\n\n(?=    )", "\n", ENTERED + 'trio.run(main)\nprint("(the next one is refused)")\n')
    refused = "try:\n    trio.run(plain)\nexcept snakepit.UsageError as error:\n    print('UsageError:', error)\n\n"
    check_prompt(run_prompt(command, typed + refused, tmp_path))
