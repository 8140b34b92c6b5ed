"""What another user, another container or a broken file can make the clean-up of dead runs do: nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_trio._processes import guardian, registry
from snakepit_trio._processes.guardian import start_ticks

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")


def _may_unshare(*command: str) -> bool:
    try:
        return subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
in_containers = pytest.mark.skipif(
    not _may_unshare(*CONTAINER, "--mount-proc"), reason=f"{' '.join(CONTAINER)} is not allowed here"
)


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders have long names
        monkeypatch.setenv("SNAKEPIT_RUN_DIR", folder)
        yield
        monkeypatch.undo()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any pool."""
    with subprocess.Popen(["sleep", "600"], process_group=0) as process:
        yield process
        assert process.poll() is None, "an innocent process was killed"
        process.kill()


def _dead_run() -> tuple[Path, Path]:
    """A dead run: its folder, and the file of its worker."""
    run = registry.ProcessRegistry.open("dead")
    run.reserve("dead-1")
    (path,) = (run.folder / "workers").glob("*.json")
    os.close(run._lock)
    registry._open_here.discard(run)
    return run.folder, path


def _swept() -> list[int]:
    return [one.killed for one in registry.sweep()]


def _names(path: Path, pid: object, ticks: object) -> None:
    recorded = {"state": "active", "pid": pid, "start_ticks": ticks, "keeper": None, "keeper_start_ticks": None}
    path.write_text(json.dumps({"id": "dead-1", **recorded}))


# Broken and planted files.


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"id": 1, "state": "active"}', "{}", '{"id": "x"', "\0" * 100]
)
def test_a_broken_file_of_a_worker_is_skipped_and_reported(text: str, caplog: pytest.LogCaptureFixture) -> None:
    _, path = _dead_run()
    path.write_text(text)
    assert _swept() == [0]
    assert f"{path} names no worker, and is skipped" in caplog.text
    assert registry.runs() == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": 0, "pool": "p", "started_at": 0}', '{"pool": ["p"], "pid": 5}']
)
def test_a_broken_file_of_a_run_is_skipped_and_reported(text: str, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = _dead_run()
    other, _ = _dead_run()
    (folder / "host.json").write_text(text)
    assert [one.run.folder for one in registry.sweep()] == [other]
    assert f"{folder} is no run of a pool, and is left alone" in caplog.text
    shutil.rmtree(folder)


@pytest.mark.parametrize("pid", [1, 0, -1, True, 1.5, "2"])
def test_what_is_no_pid_of_a_worker_is_not_killed(
    pid: object, stranger: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    _, path = _dead_run()
    _names(path, pid, 0)  # a wrong start, so that the machine survives if this test fails
    assert _swept() == [0]
    assert "names no worker" in caplog.text


def test_a_group_and_the_first_process_are_no_processes_of_a_run() -> None:
    first = start_ticks(1)
    assert first is not None
    assert guardian.alive({1: first, 0: first, -1: first}) == set()


@pytest.mark.parametrize("what", ["host.json", "lock", "workers", "worker", "run"])
def test_links_are_not_followed(what: str, stranger: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Each thing in the folder of runs lies somewhere else, with a link in its place."""
    folder, path = _dead_run()
    _names(path, stranger.pid, start_ticks(stranger.pid))
    moved = {"run": folder, "worker": path}.get(what, folder / what)
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    assert _swept() in ([0], [])
    assert (tmp_path / "elsewhere").exists()
    if folder.is_symlink():
        assert (tmp_path / "elsewhere" / "host.json").exists()


@pytest.mark.parametrize("what", ["host.json", "worker"])
def test_a_pipe_in_place_of_a_file_blocks_nobody(what: str) -> None:
    folder, path = _dead_run()
    target = path if what == "worker" else folder / what
    target.unlink()
    os.mkfifo(target)
    assert _swept() in ([0], [])


@as_root
@pytest.mark.parametrize("what", ["host.json", "workers", "worker", "run"])
def test_files_of_another_user_name_no_process_of_ours(
    what: str, stranger: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    folder, path = _dead_run()
    _names(path, stranger.pid, start_ticks(stranger.pid))
    os.chown({"run": folder, "worker": path}.get(what, folder / what), NOBODY, NOBODY)
    assert _swept() in ([0], [])
    assert f"belongs to uid {NOBODY}" in caplog.text


def test_a_run_whose_name_is_a_pattern_removes_no_memory_of_others() -> None:
    shared = Path(f"/dev/shm/snakepit-{os.getpid()}-attack")
    shared.touch()
    try:
        folder, _ = _dead_run()
        folder.rename(folder.parent / "*")
        assert _swept() == [0]
        assert shared.exists()
    finally:
        shared.unlink()


# Other namespaces.

IN_A_CONTAINER = """
import json, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from snakepit_trio._processes import guardian, registry
stranger = subprocess.Popen(["sleep", "600"])
"""
FIRST_PROCESS = """
run = registry.ProcessRegistry.open("dead")
run.reserve("dead-1")
(path,) = (run.folder / "workers").glob("*.json")
os.close(run._lock)
ticks = guardian.start_ticks(1)
recorded = {"pid": 1, "start_ticks": ticks, "keeper": 1, "keeper_start_ticks": ticks}
path.write_text(json.dumps({"id": "dead-1", "state": "active", **recorded}))
print(len(registry.sweep()), stranger.poll())
"""
FOREIGN_PROC = """
guardian.kill({stranger.pid})
try:
    print(stranger.wait(0.5))
except subprocess.TimeoutExpired:
    print("lives")
"""


def _in_container(code: str, *options: str) -> str:
    root = str(Path(registry.__file__).parents[2])
    command = [*CONTAINER, *options, sys.executable, "-c", IN_A_CONTAINER + code, root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.stdout.strip() or done.stderr


@in_containers
def test_a_run_that_names_the_first_process_of_a_container_does_not_end_the_container() -> None:
    """All processes descend from the first one, and descendants of a worker are killed with it."""
    assert _in_container(FIRST_PROCESS, "--mount-proc") == "1 None"


@in_containers
def test_pids_of_a_foreign_proc_are_not_killed() -> None:
    """A container that sees the machine's /proc: the pids there are other processes' in the container."""
    assert _in_container(FOREIGN_PROC) == "lives"


# Where the folder of runs is.


@pytest.fixture
def session_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "session"
    folder.mkdir(mode=0o700)
    (tmp_path / "temporary").mkdir()
    monkeypatch.delenv("SNAKEPIT_RUN_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("snakepit_trio._processes.registry._LONGEST_FOLDER", 200)  # pytest's folders have long names
    return folder


def test_runs_are_in_the_folder_of_the_login(session_folder: Path) -> None:
    assert registry.runs_folder() == session_folder / "snakepit"
    assert (session_folder / "snakepit").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701, 0o500])
def test_a_folder_of_the_login_that_others_may_enter_is_not_used(session_folder: Path, mode: int) -> None:
    session_folder.chmod(mode)
    assert registry.runs_folder().name == f"snakepit-{os.getuid()}"
    assert list(session_folder.iterdir()) == []
    session_folder.chmod(0o700)


@pytest.mark.parametrize("how", ["link", "file", "absent", "relative"])
def test_what_is_no_folder_of_the_login_is_not_used(
    session_folder: Path, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(session_folder)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "session" if how == "relative" else str(tmp_path / how))
    assert registry.runs_folder().name == f"snakepit-{os.getuid()}"


@as_root
def test_a_folder_of_the_login_of_another_user_is_not_used(session_folder: Path) -> None:
    os.chown(session_folder, NOBODY, NOBODY)
    assert registry.runs_folder().name == f"snakepit-{os.getuid()}"


def test_a_pool_outlives_the_folder_of_the_login(session_folder: Path) -> None:
    """The system removes it at the logout, though programs run on."""
    run = registry.ProcessRegistry.open("outlives")
    shutil.rmtree(session_folder)
    run.reserve("outlives-1")
    assert run.folder.parent.name == f"snakepit-{os.getuid()}"
    assert [found.id for found in registry.runs()] == [run.run_id]
    run.close()
    assert registry.runs() == []


def test_a_marked_process_is_still_killed() -> None:
    """The checks leave the sweep its work."""
    folder, path = _dead_run()
    path.write_text("")
    environment = {**os.environ, guardian.RUN_VARIABLE: folder.name}
    with subprocess.Popen(["sleep", "600"], env=environment) as orphan:
        assert _swept() == [1]
        assert orphan.wait(60) == -signal.SIGKILL
