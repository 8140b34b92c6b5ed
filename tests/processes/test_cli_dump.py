"""`snakepit dump`: the stacks of a pool's workers and tasks, whatever they are doing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from bridge_py.execution.stacks import FILE_NAME, SIGNAL
from snakepit_trio import StdioJson, open_pool
from snakepit_trio._processes.stacks import NoStacks, parsed, stacks_of
from tests.helpers.command import ROOT, command, environment, snakepit
from tests.helpers.hosts import Host, host


@pytest.fixture
def looked_at(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path, workers=1) as it:
        yield it


def dump_of(looked_at: Host, *options: str, code: int = 0, **variables: str) -> str:
    done = snakepit("dump", str(looked_at.pid), *options, folder=None, **variables)
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


def part_of(text: str, beginning: str) -> str:
    """The lines from one that begins so, to the next empty one."""
    found = re.search(rf"^{beginning}.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, text
    return found[0]


def pid_of_worker(text: str) -> int:
    found = re.search(r"^worker \S.* of pool 'looked at', pid (\d+), ", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1])


def test_a_worker_that_holds_the_lock_of_the_interpreter(looked_at: Host) -> None:
    looked_at.say("call hold_the_gil")
    for _ in range(2):  # the file of the stacks is empty again after each dump
        worker = part_of(dump_of(looked_at), "worker looked at-1 ")
        assert re.search(r", busy\n  call 1 of hold_the_gil: running, since \d+\.\d s\n  thread 0x", worker)
        assert 're.fullmatch(r"(a|aa)+b", "a" * 60)' in worker
        assert worker.count(", in hold_the_gil\n") == 1


def test_all_threads_of_a_worker(looked_at: Host) -> None:
    looked_at.say("call loop_in_threads")
    worker = part_of(dump_of(looked_at), "worker looked at-1 ")
    assert worker.count(", in a_named_loop\n") == 2
    assert worker.count("\n  thread 0x") >= 3


def test_the_tasks_of_the_host(looked_at: Host) -> None:
    looked_at.say("call sleep_long")
    text = part_of(dump_of(looked_at), "host ")
    assert text.startswith(f"host {looked_at.pid}: tasks of trio\n")
    waiting = text.partition("          a waiting task\n")[2].splitlines()[:3]
    assert [line.strip() for line in waiting][1:] == ["await trio.Event().wait()", "awaits trio's Event.wait"]
    assert "awaits snakepit_trio's Calls.execute" in text
    assert text.index("__main__.main") < text.index("nursery 2:") < text.index("a waiting task")
    assert re.search(r"and \d\d+ tasks of trio and of pools: --all shows them", text)
    assert f"host {looked_at.pid}: thread readline from __main__.main" in text
    assert "Supervisor.run" not in text
    everything = part_of(dump_of(looked_at, "--all"), "host ")
    assert "snakepit_trio._workers.supervisor.Supervisor.run" in everything
    assert "--all" not in everything


def test_the_workers_go_on(looked_at: Host) -> None:
    pid = pid_of_worker(dump_of(looked_at))
    looked_at.say("add")
    assert pid_of_worker(dump_of(looked_at)) == pid


def test_a_worker_names_its_host(looked_at: Host) -> None:
    pid = pid_of_worker(dump_of(looked_at))
    done = snakepit("dump", str(pid))
    assert done.stdout.startswith(f"host {looked_at.pid}: ")


def test_workers_of_a_template_have_files_of_their_own(tmp_path: Path) -> None:
    with host(tmp_path, workers=2, template=True) as looked_at:
        looked_at.say("call hold_the_gil")
        looked_at.say("call sleep_long")
        text = dump_of(looked_at)
        functions = {"hold_the_gil", "sleep_long"}
        for number in (1, 2):
            worker = part_of(text, f"worker looked at-{number} ")
            (called,) = re.findall(r"call \d of (\w+): running", worker)
            assert {name for name in functions if f", in {name}\n" in worker} == {called}


def test_a_host_whose_loop_is_blocked(looked_at: Host) -> None:
    looked_at.say("call sleep_long")
    looked_at.say("block 60", "blocked")
    text = dump_of(looked_at, code=1, PATH="/nowhere")
    told = part_of(text, "host ")
    assert "the host has not answered in 2 s: something blocks its loop, or it is stopped" in told
    assert f"  for its stacks: pip install py-spy, then `py-spy dump --pid {looked_at.pid}`" in told
    worker = part_of(text, "worker looked at-1 ")
    assert "its calls are not known: the host does not answer" in worker
    assert ", in sleep_long\n" in worker
    looked_at.process.kill()


@pytest.mark.parametrize("is_blocked", [False, True])
def test_a_host_with_two_loops(looked_at: Host, is_blocked: bool) -> None:
    """Each loop tells of its own tasks, whichever pool was opened first, and also if the other one is blocked."""
    looked_at.say("another")
    if is_blocked:
        looked_at.say("block 60", "blocked")
    text = part_of(dump_of(looked_at, code=int(is_blocked), PATH="/nowhere"), "host ")
    assert len(re.findall(r"^ +__main__\.in_a_loop_of_its_own$", text, re.MULTILINE)) == 1
    assert text.count("a waiting task") == (0 if is_blocked else 1)
    assert len(set(re.findall(rf"^host {looked_at.pid}: tasks of trio in thread (\d+)$", text, re.MULTILINE))) == (
        0 if is_blocked else 2
    )
    assert ("the host has not answered in 2 s" in text) == is_blocked
    if is_blocked:
        looked_at.process.kill()


@pytest.mark.parametrize("code", [0, 1], ids=["works", "fails"])
def test_py_spy_tells_of_a_blocked_host(looked_at: Host, tmp_path: Path, code: int) -> None:
    program = tmp_path / "py-spy"
    program.write_text(f'#!/bin/sh\necho "asked: $*"\nexit {code}\n')
    program.chmod(0o755)
    looked_at.say("block 60", "blocked")
    told = part_of(dump_of(looked_at, code=1, PATH=f"{tmp_path}:{os.environ['PATH']}"), "host ")
    assert f"  asked: dump --pid {looked_at.pid}" in told
    assert ("has failed; it may need the rights of root:" in told) == bool(code)
    looked_at.process.kill()


def test_a_stopped_worker(looked_at: Host) -> None:
    pid = pid_of_worker(dump_of(looked_at))
    os.kill(pid, signal.SIGSTOP)
    try:
        worker = part_of(dump_of(looked_at, PATH="/nowhere"), "worker looked at-1 ")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"it has not told them in 2 s: it is stopped, or its code blocks signal {int(SIGNAL)}" in worker
    assert f"its state: T (stopped); `kill -CONT {pid}` lets it go on" in worker
    # What it writes late, when it goes on, does not hide what it does next.
    looked_at.say("call sleep_long")
    assert ", in sleep_long\n" in part_of(dump_of(looked_at), "worker looked at-1 ")


def test_a_worker_whose_code_has_closed_the_file(looked_at: Host) -> None:
    looked_at.say("call close_everything")
    worker = part_of(dump_of(looked_at, PATH="/nowhere"), "worker looked at-1 ")
    assert "it cannot tell its stacks: it is no Python worker of this version, or its code has closed" in worker
    assert "py-spy dump --pid" in worker


def test_several_at_once(looked_at: Host) -> None:
    looked_at.say("call sleep_long")
    with ThreadPoolExecutor(4) as threads:
        for text in threads.map(lambda _: dump_of(looked_at), range(4)):
            assert part_of(text, "worker looked at-1 ").count(", in sleep_long\n") == 1


def test_a_killed_host(looked_at: Host) -> None:
    looked_at.process.kill()
    looked_at.process.wait()
    done = snakepit("dump", str(looked_at.pid))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: process {looked_at.pid} has no open pool, or it is another user's; hosts")


def test_a_reader_that_leaves(looked_at: Host) -> None:
    with subprocess.Popen(
        command("dump", str(looked_at.pid)), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("holds", ["nothing", "a file without a handler"])
async def test_a_process_without_the_handler_is_not_signalled(holds: str) -> None:
    make = f"import os, time; os.memfd_create({FILE_NAME!r})" if holds != "nothing" else "import time"
    script = f"{make}; print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)  # noqa: ASYNC220
    try:
        assert process.stdout is not None
        process.stdout.readline()
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        with trio.fail_after(30), pytest.raises(NoStacks, match="it cannot tell its stacks"):
            await stacks_of(process.pid, ticks)
        with trio.fail_after(30), pytest.raises(NoStacks, match="it has ended"):
            await stacks_of(process.pid, ticks + 1)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(NoStacks, match="it has ended"):
        await stacks_of(process.pid, ticks)


def test_what_a_worker_writes_is_escaped_and_in_order() -> None:
    text = """garbage
Thread 0x0000000000000001 [name] (most recent call first):
  File "\x1b[31ma.py", line 3 in inner
  File "b.py", line ??? in outer

Current thread 0x0000000000000002 (most recent call first):
  <no Python frame>
"""
    first, second = parsed(text)
    assert (first.thread, first.frames) == (
        "0x0000000000000001",
        [("b.py", 0, "outer"), ("\\x1b[31ma.py", 3, "inner")],
    )
    assert (second.thread, second.frames) == ("0x0000000000000002", [])


async def test_a_worker_of_another_kind_leads_to_py_spy() -> None:
    async with open_pool(StdioJson(str(ROOT / "tests/helpers/stdio_worker.py")), workers=1, name="foreign"):
        with trio.fail_after(60):
            done = await trio.run_process(
                command("dump", str(os.getpid())), env=environment(PATH="/nowhere"), capture_stdout=True
            )
    worker = part_of(done.stdout.decode(), "worker foreign-1 ")
    assert "it cannot tell its stacks: it is no Python worker of this version" in worker
    assert "for its stacks: pip install py-spy, then `py-spy dump --pid" in worker
