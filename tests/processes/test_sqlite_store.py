"""Sessions in a file of SQLite: they outlive programs, whatever ends those, and programs share them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.state.session import Session
from snakepit_trio.state.sqlite import SqliteStore
from tests.helpers.store_turns import hosts_take_turns

pytestmark = pytest.mark.processes
TOOLS = "tests.helpers.state_tools:StateTools"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sessions.db")


@contextlib.contextmanager
def program(what: str, path: str, name: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.helpers.sqlite_programs", what, path, *([name] if name else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def increment(session: Session) -> None:
    session.update("n", session.get("n").value + 1)


# What outlives what.


async def test_sessions_are_there_when_the_file_is_opened_again(path: str) -> None:
    async with SqliteStore(path) as store:
        view = store.of(await store.create_session("s", ttl=None, metadata={"a": "1"}))
        await view.register_variable("x", "map", {"k": [1, (2,)]}, metadata={"m": "n"})
        await view.update_variable("x", {"k": b"\x00"})
        await view.store_program("p", {"step": 1})
        await store.store_global_program("g", [1])
        exported, stats = await store.export_session("s"), await store.get_stats()
    assert os.listdir(os.path.dirname(path)) == ["sessions.db"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    async with SqliteStore(path) as store:
        assert await store.export_session("s") == exported
        assert await store.get_stats() == stats
        assert await store.get_global_program("g") == [1]


async def test_sessions_expire_while_no_program_runs(path: str) -> None:
    clock = [1000.0]
    async with SqliteStore(path, clock=lambda: clock[0]) as store:
        await store.create_session("s", ttl=10)
        await store.create_session("t", ttl=100)
    clock[0] += 50
    async with SqliteStore(path, clock=lambda: clock[0]) as store:
        assert await store.list_sessions() == ["t"]
        assert await store.cleanup_expired_sessions() == 1


async def test_no_acknowledged_update_is_lost_by_sigkill_and_none_is_half_made(path: str) -> None:
    acknowledged = {"x": 0, "y": 0}
    for turn in range(3):
        with program("write", path, "x") as first, program("write", path, "y") as second:
            for process, name in ((first, "x"), (second, "y")):
                for _ in range(5 + turn):
                    acknowledged[name] = int(line_of(process))
            for process, name in ((first, "x"), (second, "y")):
                process.send_signal(signal.SIGKILL)
                assert process.stdout is not None
                for line in process.stdout:
                    if line.endswith("\n"):
                        acknowledged[name] = int(line)
        async with SqliteStore(path) as store:
            for name, last in acknowledged.items():
                found, missing = await store.of("s").get_variables([f"a{name}", f"b{name}"])
                assert not missing
                assert found[f"a{name}"].value == found[f"b{name}"].value
                assert found[f"a{name}"].value in (last, last + 1)


async def test_programs_that_count_at_the_same_time_lose_nothing(path: str) -> None:
    async with SqliteStore(path) as store:
        with program("count", path) as first, program("count", path) as second:
            view = store.of("s")
            with trio.fail_after(60):
                while first.poll() is None or second.poll() is None:
                    await trio.sleep(0.01)
                    with contextlib.suppress(snakepit.SessionNotFound, snakepit.VariableNotFound):
                        await store.update_session("s", increment)
                        await store.update_session("s", lambda session: session.update("n", session.get("n").value - 1))
            assert (first.returncode, second.returncode) == (0, 0)
        assert await view.get_variable_value("n") == 200


async def test_a_host_that_asks_gets_its_turn(path: str) -> None:
    async with SqliteStore(path) as one, SqliteStore(path) as other:
        await hosts_take_turns(one, other)


async def test_a_turn_ends_though_the_clock_is_set_back(path: str) -> None:
    async with SqliteStore(path) as one:
        with sqlite3.connect(path) as connection:
            await one.create_session("s")
            await one.of("s").register_variable("n", "integer", 0)
            turn = "INSERT INTO turns SELECT birth, 'another', strftime('%s', 'now') + 3600 FROM sessions"
            connection.execute(turn)
        connection.close()
        with trio.fail_after(30):
            await one.update_session("s", increment)


async def test_watchers_in_other_programs_hear_of_changes_and_of_the_end(path: str) -> None:
    async with SqliteStore(path) as store:
        await store.create_session("s", ttl=None)
        view = store.of("s")
        await view.register_variable("n", "integer", 1)
        with program("watch", path) as watching:
            assert await trio.to_thread.run_sync(line_of, watching) == "initial 1"
            for value in (2, 3):
                await view.update_variable("n", value)
                assert await trio.to_thread.run_sync(line_of, watching) == f"changed {value}"
            await view.delete_variable("n")
            assert await trio.to_thread.run_sync(line_of, watching) == "deleted None"
            await store.delete_session("s")
            assert await trio.to_thread.run_sync(line_of, watching) == "ended"
            assert await trio.to_thread.run_sync(watching.wait) == 0


async def test_pools_of_two_programs_share_a_session(path: str) -> None:
    async with (
        SqliteStore(path, poll=0.01) as one,
        SqliteStore(path, poll=0.01) as other,
        snakepit.open_pool(TOOLS, workers=1, store=one) as first,
        snakepit.open_pool(TOOLS, workers=1, store=other) as second,
        first.session("s") as session,
    ):
        await session.register_variable("x", "integer", 1)
        asked = {"method": "get_variable_value", "args": ["x"], "options": {}}
        assert await second.execute("call", asked, session="s") == 1
        await session.update_variable("x", 2)
        with trio.fail_after(30):  # the worker of the other program remembers 1, until it is told
            while await second.execute("call", asked, session="s") != 2:
                await trio.sleep(0.01)


# What goes wrong.


async def test_a_full_disk_is_told_and_nothing_is_lost(path: str) -> None:
    with program("fill", path) as filling:
        full = await trio.to_thread.run_sync(line_of, filling)
        assert full.startswith("full the store")
        written = int(await trio.to_thread.run_sync(line_of, filling))
        assert await trio.to_thread.run_sync(filling.wait) == 0
    async with SqliteStore(path) as store:
        assert await store.of("s").get_variable_value("n") == written
        assert len(await store.of("s").list_programs()) == written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs to mount a small disk")
async def test_a_disk_that_is_full_says_so(small_disk: Path) -> None:
    async with SqliteStore(small_disk / "sessions.db") as store:
        view = store.of(await store.create_session("s"))
        await view.register_variable("n", "integer", 1)
        (small_disk / "rest").write_bytes(b"x" * (700 << 10))
        with pytest.raises(snakepit.StoreUnavailable, match="the disk is full: make room"):
            await view.store_program("p", b"x" * (900 << 10))
        assert await view.get_variable_value("n") == 1
        assert await view.list_programs() == []
        (small_disk / "rest").unlink()
        await view.update_variable("n", 2)
    async with SqliteStore(small_disk / "sessions.db") as store:
        assert await store.of("s").get_variable_value("n") == 2


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_file_that_was_taken_away_takes_no_updates(
    path: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with SqliteStore(path) as store:
        view = store.of(await store.create_session("s"))
        await view.register_variable("n", "integer", 1)
        os.rename(path, path + ".kept")
        if how == "replaced":
            shutil.copy(path + ".kept", path)
        for step in (view.update_variable("n", 2), view.get_variable("n"), store.create_session()):
            with pytest.raises(snakepit.StoreUnavailable, match="deleted, moved or replaced"):
                await step
        with trio.fail_after(30):
            while "changes of other hosts come late" not in caplog.text:
                await trio.sleep(0.01)
        os.rename(path + ".kept", path)
        await view.update_variable("n", 3)
        assert await view.get_variable_value("n") == 3


async def refused(path: str, error: type[Exception], match: str) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(error, match=match):
        async with SqliteStore(path):
            pass
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


async def test_files_that_are_refused(path: str, tmp_path: Path) -> None:
    await refused(str(tmp_path), snakepit.UsageError, "is no file")
    await refused(f"{tmp_path}/nowhere/sessions.db", snakepit.StoreUnavailable, "No such file or directory")
    Path(path).write_bytes(b"not a database, whatever its name says" * 100)
    os.chmod(path, 0o600)
    await refused(path, snakepit.StoreCorrupt, "is damaged, or is no store: file is not a database")
    os.unlink(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
    await refused(path, snakepit.UsageError, "is a database of another program")
    os.unlink(path)
    async with SqliteStore(path):
        pass
    os.chmod(path, 0o620)
    await refused(path, snakepit.UsageError, "other users may write to .*: chmod 600")
    os.chmod(path, 0o600)
    os.chmod(tmp_path, 0o777)
    await refused(path, snakepit.UsageError, "all users may put files into")
    os.chmod(tmp_path, 0o700)
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    await refused(path, snakepit.UsageError, "written by a newer snakepit-trio .format 99; this one knows 1")


async def test_a_file_of_another_user_is_refused(path: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    async with SqliteStore(path):
        pass
    os.chown(path, 12345, 12345)
    await refused(path, snakepit.UsageError, "belongs to another user")
    os.chown(path, 0, 0)
    Path(f"{path}-wal").touch(mode=0o600)
    os.chown(f"{path}-wal", 12345, 12345)
    await refused(path, snakepit.UsageError, "sessions.db-wal' belongs to another user")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"path": ""}, "give the path of a file"),
        ({"path": ":memory:"}, "give the path of a file; a store in memory is MemoryStore"),
        ({"synchronous": "on"}, 'give one of "full"'),
        ({"poll": 0}, "poll=0: give seconds"),
        ({"path": "a\0b"}, r"path='a\\x00b': give the path of a file"),
        ({"path": "\ud800"}, "give the path of a file"),
        ({"clock": 5}, "clock=5: give a function"),
        ({"quotas": 5}, "quotas=5: give Quotas"),
        ({"cache_bytes": None}, "cache_bytes=None: give a whole number"),
        ({"patience": float("nan")}, "patience=nan: give seconds"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(snakepit.UsageError, match=match):
        SqliteStore(options.pop("path", "sessions.db"), **options)


async def test_a_damaged_file_is_told_and_what_is_whole_is_read(path: str) -> None:
    async with SqliteStore(path) as store:
        for number in range(50):
            view = store.of(await store.create_session(f"s{number}"))
            await view.store_program("p", os.urandom(3000))
    size = os.stat(path).st_size
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: size // 2] + b"\xff" * 16384 + whole[size // 2 + 16384 :])
    told = 0
    async with SqliteStore(path) as store:
        for number in range(50):
            try:
                await store.of(f"s{number}").get_program("p")
            except snakepit.StoreCorrupt:
                told += 1
    assert 0 < told < 50


async def test_a_damaged_part_is_told_by_name(path: str) -> None:
    async with SqliteStore(path) as store:
        await store.of(await store.create_session("s")).store_program("p", 1)
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE parts SET data = 'text' WHERE key = 'pp'")
            other.commit()
    async with SqliteStore(path) as store:
        with pytest.raises(snakepit.StoreCorrupt, match="session 's': program 'p' in the store cannot be read"):
            await store.get_session("s")
        assert await store.delete_session("s")


# Waiting and cancelling.


async def test_a_writer_who_waits_for_another_program_can_be_cancelled(path: str) -> None:
    async with SqliteStore(path) as store:
        view = store.of(await store.create_session("s"))
        await view.register_variable("n", "integer", 1)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with trio.fail_after(30), trio.move_on_after(0.3) as waiting:
                await view.update_variable("n", 2)
            assert waiting.cancelled_caught
            assert await view.get_variable_value("n") == 1  # reading waits for nobody
            other.execute("ROLLBACK")
        await view.update_variable("n", 3)
        assert (await view.get_variable("n")).version == 2


async def test_a_program_that_holds_the_file_for_too_long_is_told(path: str) -> None:
    async with SqliteStore(path, patience=0.2) as store:
        view = store.of(await store.create_session("s"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(snakepit.StoreUnavailable, match="another process has held it for too long"):
                await view.put_metadata("a", "1")
        await view.put_metadata("a", "2")
        assert (await view.info()).metadata == {"a": "2"}


async def test_nothing_is_left_and_nothing_works_after_the_block(path: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    store = SqliteStore(path)
    with pytest.raises(snakepit.UsageError, match="the store is not open"):
        await store.list_sessions()
    with pytest.raises(ZeroDivisionError):
        async with store:
            await store.create_session("s")
            with trio.move_on_after(0.001):
                while True:
                    await store.update_session("s", lambda session: session.put_metadata("a", "1"))
            _ = 1 / 0
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.listdir(os.path.dirname(path)) == ["sessions.db"]
    with pytest.raises(snakepit.UsageError, match="the store is closed"):
        await store.list_sessions()


# Pools whose store fails.


async def test_who_waits_to_read_when_the_store_closes_is_told(path: str) -> None:
    ended: list[bool] = []

    async def ask(store: SqliteStore) -> None:
        with contextlib.suppress(snakepit.UsageError):  # the store is closed between its steps
            await store.get_stats()
        ended.append(True)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, SqliteStore(path) as store:
            for _ in range(5):
                nursery.start_soon(ask, store)
            await trio.lowlevel.checkpoint()
    assert len(ended) == 5


async def test_many_sessions_expire_piece_by_piece(path: str) -> None:
    now = 1.7e9
    async with SqliteStore(path, synchronous="off", clock=lambda: now) as store:
        async with trio.open_nursery() as nursery:
            for number in range(600):
                nursery.start_soon(partial(store.create_session, f"e{number}", ttl=10))
        now += 11
        assert len(await store._backend.expire()) == 500
        assert await store.cleanup_expired_sessions() == 100
        assert (await store.get_stats()).expired == 600


async def test_a_ttl_may_be_a_large_whole_number(path: str) -> None:
    async with SqliteStore(path) as store:
        await store.create_session("s", ttl=10**20)
        assert (await store.get_session("s")).ttl == 1e20


async def test_a_link_to_the_file_is_followed_and_what_lies_beside_the_file_is_checked(
    path: str, tmp_path: Path
) -> None:
    link = str(tmp_path / "link.db")
    os.symlink(path, link)
    async with SqliteStore(link) as store:
        await store.create_session("s")
    Path(f"{path}-wal").touch()
    os.chmod(f"{path}-wal", 0o666)
    await refused(link, snakepit.UsageError, "other users may write to .*sessions.db-wal'")


async def test_calls_of_a_pool_whose_store_fails(path: str) -> None:
    async with (
        SqliteStore(path) as store,
        snakepit.open_pool(TOOLS, workers=1, store=store) as pool,
        pool.session("s") as session,
    ):
        await session.register_variable("x", "integer", 1)
        (pid,) = [worker.pid for worker in pool.list_workers()]
        os.rename(path, path + ".kept")
        asked = {"method": "update_variable", "args": ["x", 2], "options": {}}
        for step in (session.update_variable("x", 2), session.execute("call", asked)):
            with pytest.raises(snakepit.StoreUnavailable, match="deleted, moved or replaced"):
                await step
        os.rename(path + ".kept", path)
        await session.execute("call", asked)
        assert await session.get_variable_value("x") == 2
        assert [worker.pid for worker in pool.list_workers()] == [pid]
