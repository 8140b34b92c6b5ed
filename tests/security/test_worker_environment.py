"""What a worker's environment and files show to other programs of the machine."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool

SECRET = "5ec2e7" * 5


class Looking(BaseAdapter):
    """A tool that looks for the secret in its own process."""

    def __init__(self, password: str = "") -> None:
        self.password = password

    @tool
    def ledger(self) -> bytes:
        """The page that the worker shares with its host."""
        for name in os.listdir("/proc/self/fd"):
            path = f"/proc/self/fd/{name}"
            if os.readlink(path).startswith("/memfd:snakepit-ledger"):
                return Path(path).read_bytes()
        raise LookupError("no ledger")

    @tool
    def knows(self) -> str:
        """The option."""
        return self.password


async def test_the_secret_of_the_link_is_in_no_environment_no_command_and_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen from outside, in all processes of the pool, while the worker lives."""
    random = secrets.token_hex
    monkeypatch.setattr("secrets.token_hex", lambda size: SECRET if size == 16 else random(size))
    async with snakepit.open_pool(Looking, workers=1) as pool:
        ledger = await pool.execute("ledger")
        assert any(ledger)
        assert SECRET.encode() not in ledger
        processes = psutil.Process().children(recursive=True)
        assert {worker.pid for worker in pool.list_workers()} < {process.pid for process in processes}
        for process in processes:
            for file in ("environ", "cmdline"):
                assert SECRET.encode() not in Path(f"/proc/{process.pid}/{file}").read_bytes()


async def test_passwords_among_the_options_of_an_adapter_are_in_no_environment_and_no_command() -> None:
    async with snakepit.open_pool(Looking, workers=1, options={"password": SECRET * 10_000}) as pool:
        assert await pool.execute("knows") == SECRET * 10_000  # an environment could not hold it
        for process in psutil.Process().children(recursive=True):
            for file in ("environ", "cmdline"):
                assert SECRET.encode() not in Path(f"/proc/{process.pid}/{file}").read_bytes()
            targets = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
            assert not any("snakepit-options" in target for target in targets)


# The working directory.

PLANTED = """
from bridge_py import BaseAdapter, tool

class Planted(BaseAdapter):
    @tool
    def who(self) -> str:
        return __file__
"""
HOST = """
import sys, trio
import snakepit_trio as snakepit

async def main(adapter, options):
    try:
        async with snakepit.open_pool(adapter, workers=1, **options) as pool:
            print("got", await pool.execute("who"))
    except snakepit.WorkerStartError as error:
        print("refused", error)

def test_it():
    adapter, *python = sys.modules["os"].environ["TRY"].split()
    options = {"python": python[0]} if python else {}
    trio.run(main, adapter, options)

if __name__ == "__main__":
    test_it()
"""
HOSTS = {
    "script": ["script.py"],
    "script elsewhere": ["../script.py"],
    "script with -P": ["-P", "../script.py"],
    "module": ["-m", "script"],
    "command": ["-c", HOST],
    "isolated": ["-I", "-c", f"import sys; sys.path[:0] = sys.argv[1].split(':')\n{HOST}"],
    "pytest": ["-m", "pytest", "-qs", "-p", "no:cacheprovider", "script.py"],
    "pytest by its command": [
        "-c",
        "import sys; sys.path.remove(''); import pytest; pytest.main(['-qs', 'script.py'])",
    ],
}
WITHOUT = {"script elsewhere", "script with -P", "isolated"}


def _run(how: str, folder: Path, adapter: str, python: str = "") -> str:
    """Run a host in a folder, which is not the one of its packages. Returns what it says."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    ours = str(Path(snakepit.__file__).parents[1])
    command = [sys.executable, *HOSTS[how], ours]
    environment |= {"PYTHONPATH": ours, "TRY": f"{adapter} {python}", "SNAKEPIT_RUN_DIR": str(folder.parent / "r")}
    if how in ("pytest", "pytest by its command"):
        command.pop()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """A working directory with an adapter in it; a script is there too, and in the folder above."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "work")
        folder.mkdir()
        (folder / "planted.py").write_text(PLANTED)
        for place in (folder, folder.parent):
            (place / "script.py").write_text(HOST)
        yield folder


@pytest.mark.parametrize("python", ["", "other"])
@pytest.mark.parametrize("how", HOSTS)
def test_workers_import_from_the_working_directory_where_their_host_does(how: str, python: str, folder: Path) -> None:
    """With the host's interpreter, and with one that is taken for another, by the spelling of its path."""
    if python:
        folder_of_python, name = os.path.split(sys.executable)
        python = os.path.join(folder_of_python, os.pardir, os.path.basename(folder_of_python), name)
    said = _run(how, folder, "planted:Planted", python)
    if how in WITHOUT:
        assert "refused" in said
        assert "planted is in the working directory, where your program imports nothing" in said
    else:
        assert f"got {folder / 'planted.py'}" in said


def test_a_planted_module_is_not_imported_in_place_of_one_that_is_missing(folder: Path) -> None:
    """A library tries an optional module that is not installed."""
    (folder / "optional_speedups.py").write_text("open('reached', 'w')")
    (folder.parent / "mine.py").write_text(
        f"try:\n    import optional_speedups\nexcept ImportError:\n    pass\n{PLANTED}"
    )
    assert f"got {folder.parent / 'mine.py'}" in _run("script elsewhere", folder, "mine:Planted")
    assert not (folder / "reached").exists()
    assert f"got {folder.parent / 'mine.py'}" in _run("script elsewhere", folder, f"{folder.parent}/mine.py:Planted")
    assert not (folder / "reached").exists()
