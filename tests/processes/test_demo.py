"""The real command, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1"}


def snakepit(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakepit_trio", *args]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


def totals(output: str) -> str:
    return output.partition("\nTotals\n")[2].partition("\n\n")[0]


def counts(output: str) -> dict[str, int]:
    found = re.search(r"(\d+) workers? killed, (\d+) calls? run again\n(\d+) worker processes left\n$", output)
    assert found is not None, output
    return dict(zip(["killed", "again", "left"], map(int, found.groups()), strict=True))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages of the standard library, and files that do not parse."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for package in ("json", "asyncio"):
        shutil.copytree(library / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "[bold]bad.py").write_bytes(b"def f(:\n")
    (tmp_path / "null.py").write_bytes(b"x\0y\n")
    return tmp_path


@pytest.fixture
def big_tree(tmp_path: Path) -> Path:
    """Files that take many seconds to measure."""
    text = "def f(x):\n    if x:\n        return [y for y in x if y]\n" * 2000
    for number in range(300):
        (tmp_path / f"{number}.py").write_text(text)
    return tmp_path


def test_a_small_tree(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def simple():\n    pass\n\n\ndef branchy(x):\n    return 1 if x else 2\n")
    (tmp_path / "b.py").write_text("class C:\n    def long(self):\n        a\n        b\n        c\n")
    (tmp_path / "[red].py").write_text("(\n")
    done = snakepit("demo", "--path", str(tmp_path), "--workers", "1", "--top", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert re.findall(r"^ +(\d+) +(\d+)  (\S+) +(\S+) *$", done.stdout, re.MULTILINE) == [
        ("2", "2", "branchy", "a.py:5"),
        ("1", "2", "simple", "a.py:1"),
        ("4", "1", "C.long", "b.py:2"),
        ("2", "1", "simple", "a.py:1"),
    ]
    assert re.findall(r"\d+$", totals(done.stdout), re.MULTILINE)[:6] == ["3", "11", "3", "1", "4", "1"]
    assert counts(done.stdout) == {"killed": 0, "again": 0, "left": 0}


@pytest.mark.slow
def test_chaos_changes_nothing(tree: Path) -> None:
    plain = snakepit("demo", "--path", str(tree))
    chaos = snakepit("demo", "--path", str(tree), "--chaos")
    assert (plain.returncode, plain.stderr) == (chaos.returncode, chaos.stderr) == (0, "")
    assert totals(plain.stdout) == totals(chaos.stdout)
    assert re.search(r"files that do not parse +2\n", plain.stdout)
    assert counts(plain.stdout) == {"killed": 0, "again": 0, "left": 0}
    assert counts(chaos.stdout)["killed"] >= 1
    assert counts(chaos.stdout)["left"] == 0


def test_the_checksum_does_not_depend_on_the_place(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("other") / "place"
    shutil.copytree(tree, copy)
    one, other = (totals(snakepit("demo", "--path", str(path)).stdout) for path in (tree, copy))
    assert re.search(r"sha256 of the records +[0-9a-f]{16}$", one)
    assert one == other


def test_interrupting_ends_it_cleanly(big_tree: Path) -> None:
    command = [sys.executable, "-m", "snakepit_trio", "demo", "--path", str(big_tree)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("300 files")
        assert "files/s" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (130, "interrupted; 0 worker processes left\n")


def test_a_reader_that_leaves(big_tree: Path) -> None:
    command = [sys.executable, "-m", "snakepit_trio", "demo", "--path", str(big_tree)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--path", "no/such/folder"], "Directory 'no/such/folder' does not exist"),
        (["--path", __file__], "is a file"),
        (["--path", "EMPTY"], "there are no .py files below"),
        (["--workers", "0"], "0 is not in the range"),
    ],
)
def test_mistakes(tmp_path: Path, args: list[str], problem: str) -> None:
    done = snakepit("demo", *[str(tmp_path) if arg == "EMPTY" else arg for arg in args])
    assert done.returncode == 2
    assert done.stdout == ""
    assert problem in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_version_and_the_help() -> None:
    assert re.match(r"snakepit \d+\.\d+\.\d+, Python 3\.\d+\.\d+, trio \d", snakepit("version").stdout)
    helped = snakepit("demo", "--help").stdout
    assert all(option in helped for option in ("--path", "--workers", "--chaos", "--top"))


def test_the_dashboard_is_served_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def simple():\n    pass\n")
    command = [sys.executable, "-m", "snakepit_trio", "demo", "--path", str(tmp_path), "--workers", "1", "--dashboard"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            first, second, *_ = (process.stdout.readline() for _ in range(3))
            assert first.startswith("1 file below ")
            found = re.fullmatch(r"dashboard: http://127\.0\.0\.1:(\d+)/#token=(\S+)\n", second)
            assert found is not None, second
            headers = {"Authorization": f"Bearer {found[2]}"}
            with httpx.stream("GET", f"http://127.0.0.1:{found[1]}/events", headers=headers, timeout=30) as response:
                for line in response.iter_lines():
                    if line.startswith("data:") and json.loads(line[5:])["stats"]["succeeded"] > 3:
                        break
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert counts(rest)["left"] == 0
