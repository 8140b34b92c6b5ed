"""`snakepit run` as users run it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.helpers.command import TOOLS, command, environment, snakepit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(TOOLS)
    return tmp_path


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return snakepit("run", "given:Tools", *args, folder=folder)


@pytest.mark.parametrize(
    ("args", "stdout"),
    [
        ("double n=21", "42\n"),
        ("double n=21 --json", "42\n"),
        ("pair first=1 second=[1,2]", "['1', [1.0, 2.0]]\n"),
        ("pair first=1 --json", '["1",null]\n'),
        ("anything value=a\u00e9", "a\u00e9\n"),
        ("anything value=a\u00e9 --json", '"a\u00e9"\n'),
        ("anything value=@value.json", "{'a': 1}\n"),
        ("nothing", "None\n"),
        ("count", "{'number': 0}\n{'number': 1}\n{'number': 2}\n"),
        ("count to=2 --json", '{"number":0}\n{"number":1}\n'),
        ("learn --resource gpu=1", "learned\n"),
    ],
    ids=str,
)
def test_results(folder: Path, args: str, stdout: str) -> None:
    (folder / "value.json").write_text('{"a": 1}')
    done = run(folder, *args.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, stdout, "")


def test_long_results_are_pretty_but_json_is_one_document(folder: Path) -> None:
    value = {f"name {number}": list(range(20)) for number in range(9)}
    text = json.dumps(value)
    pretty = run(folder, "anything", f"value={text}").stdout
    assert len(pretty.splitlines()) > 9
    assert eval(pretty) == value
    assert json.loads(run(folder, "anything", f"value={text}", "--json").stdout) == value


def test_stdout_has_results_only(folder: Path) -> None:
    done = run(folder, "noisy")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert sorted(done.stderr.splitlines()) == ["on stderr", "on stdout"]


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ("fail", 1, 'ValueError("no such luck")'),
        ("fail", 1, "Error: tool 'fail' on worker run-1 raised ValueError: no such luck\n"),
        ("doubl n=1", 2, "Error: no tool 'doubl'; did you mean 'double'?\n"),
        ("double n=x", 2, "Error: double: n=x does not fit: give a whole number, such as 5\n"),
        ("double m=1", 2, "Error: double: there is no argument 'm'; there are: n\n"),
        ("double 1", 2, "Error: '1' is no argument: write name=value\n"),
        ("double", 2, "Error: double: 'n' is missing: write n=..., with a whole number, such as 5\n"),
        ("learn", 2, "gpu=0: give --resource gpu=1\n"),
        ("learn --resource gpu", 2, "Error: --resource gpu: write it as gpu=1\n"),
        ("learn --resource gpu=nan", 2, "Error: resources={'gpu': nan}"),
        ("double n=1 --timeout 0", 2, "Error: Invalid value for '--timeout'"),
        ("double n=1 --timeout nan", 2, "Error: timeout=nan"),
        ("die", 3, "Error: worker run-1 died (exit code 7) while it ran 'die'\n"),
        ("sleep --timeout 0.2", 4, "Error: 'sleep' was stopped: it did not end within 0.2 s"),
    ],
    ids=str,
)
def test_errors(folder: Path, args: str, code: int, text: str) -> None:
    done = run(folder, *args.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "it is replaced" not in done.stderr


def test_an_adapter_that_cannot_start(folder: Path) -> None:
    (folder / "given.py").write_text("raise OSError('no database')")
    done = run(folder, "double", "n=1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.endswith("Error: worker run-1 could not start: OSError: no database\n")
    assert done.stderr.count("Traceback") == 1


def test_what_tools_log_goes_to_stderr(folder: Path) -> None:
    (folder / "given.py").write_text(
        "import logging\nfrom bridge_py import BaseAdapter, tool\n\n"
        "class Tools(BaseAdapter):\n    @tool\n    def log(self) -> int:\n"
        "        logging.getLogger('shop').info('plain')\n        logging.error('loud', exc_info=OSError('no disk'))\n"
        "        return 1\n"
    )
    done = run(folder, "log")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr.splitlines() == ["INFO shop: plain", "ERROR root: loud", "OSError: no disk"]


def test_a_result_that_is_no_json(folder: Path) -> None:
    source = TOOLS.replace("return {1, 2} | {frozenset({3})}", "return {(1, 2): 3}")
    (folder / "given.py").write_text(source)
    assert run(folder, "thing").stdout == "{(1, 2): 3}\n"
    done = run(folder, "thing", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: the result cannot become JSON: its key (1, 2) is no text\n"


def test_chunks_come_before_an_error(folder: Path) -> None:
    done = run(folder, "words")
    assert (done.returncode, done.stdout) == (1, "one\ntwo\n")
    assert done.stderr.startswith("between\n")
    assert done.stderr.endswith("raised KeyError: 'three'\n")


def begin(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start the command, and wait for the first line that its tool prints."""
    process = subprocess.Popen(
        command("run", "given:Tools", *args),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() in ("begun\n", "asleep\n")
    return process


def test_chunks_come_as_they_are_made_and_head_ends_it_quietly(folder: Path) -> None:
    with begin(folder, "endless") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x" * 1000 + "\n"  # the stream is endless: this is no buffer's end
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("tool", ["sleep", "endless"])  # nobody reads the second one's chunks
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_signals_end_it(folder: Path, tool: str, number: signal.Signals, code: int) -> None:
    with begin(folder, tool) as process:
        assert process.stderr is not None
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) == code
        assert "Traceback" not in process.stderr.read()
        assert not psutil.wait_procs(children, 10)[1]


def test_stdout_that_does_not_block(folder: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with subprocess.Popen(
        command("run", "given:Tools", "count", "to=20000"), cwd=folder, env=environment(), stdout=theirs, text=True
    ) as process:
        os.close(theirs)
        with open(ours, encoding="utf-8") as lines:
            assert next(lines) == "{'number': 0}\n"
            assert sum(1 for _ in lines) == 19999
        assert process.wait(60) == 0


def test_stdout_that_is_closed(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "bash", *command("run", "given:Tools", "double", "n=1")],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "Error: stdout is closed: send it somewhere, such as to /dev/null\n")


@pytest.mark.parametrize("words", ["run given:Tools double n=1", "version", "--version", "--help", "run --help"])
def test_stdout_that_takes_nothing(words: str, folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*words.split()),
            cwd=folder,
            env=environment(),
            text=True,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=240,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: [Errno 28] No space left on device\n"


def test_progress_is_shown_on_terminals_only(folder: Path) -> None:
    assert run(folder, "steps").stderr == ""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("run", "given:Tools", "steps"),
        cwd=folder,
        env=environment(TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        assert process.communicate(timeout=240)[0] == "1\n"
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert shown == "\r\x1b[K1/2 half \\x1b[31mdone\r\x1b[K"
