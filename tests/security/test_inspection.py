"""The socket at which other processes look at a pool: it answers its own user, and never holds up the pool."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._cli.hosts import HostLook, NoAnswer, PoolLook, ask, look_at
from snakepit_trio._pool import inspection
from snakepit_trio._processes import registry
from snakepit_trio._processes.registry import INSPECTION, RunInfo

SHOWCASE = "bridge_py.adapters.showcase:Showcase"


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[snakepit.Pool, RunInfo]]:
    with trio.fail_after(60):
        async with snakepit.open_pool(SHOWCASE, workers=1, name="looked at") as pool:
            (run,) = registry.runs()
            yield pool, run


def path_of(run: RunInfo) -> str:
    return str(run.folder / INSPECTION)


async def connect(run: RunInfo) -> trio.SocketStream:
    stream = await trio.open_unix_socket(path_of(run))
    assert isinstance(stream, trio.SocketStream)
    return stream


async def answer(stream: trio.abc.ReceiveStream) -> bytes:
    found = b""
    with trio.fail_after(30):
        try:
            async for part in stream:
                found += part
        except trio.BrokenResourceError:  # it has been closed with our bytes unread
            pass
    return found


async def check_pool(pool: snakepit.Pool, run: RunInfo) -> None:
    """The pool works, and answers."""
    assert await pool.execute("add", {"a": 1, "b": 2}) == 3
    seen = await look_at(run, 30)
    assert (seen.problem, seen.look is not None) == ("", True)


async def test_only_its_user_can_reach_it() -> None:
    async with opened() as (_, run):
        assert Path(path_of(run)).stat().st_mode & 0o777 == 0o600
        assert run.folder.stat().st_mode & 0o777 == 0o700
    assert not run.folder.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_even_where_the_folder_lets_him_in(caplog: pytest.LogCaptureFixture) -> None:
    script = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(30)
try:
    stream.connect(sys.argv[1])
except PermissionError:
    print("no way in")
else:
    try:
        stream.send(b"pool\\n")
        print(stream.recv(1000))
    except OSError as error:
        print(b"")
"""
    async with opened() as (pool, run):

        async def attack() -> str:
            command = [sys.executable, "-I", "-c", script, path_of(run)]
            done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, env={})
            return done.stdout.decode().strip()

        assert await attack() == "no way in"
        Path(path_of(run)).chmod(0o666)
        parents = [run.folder, run.folder.parent]
        for folder in parents:
            folder.chmod(0o711)
        try:
            assert await attack() == "b''"
        finally:
            for folder in parents:
                folder.chmod(0o700)
        assert "of uid 65534 may not look at this pool" in caplog.text
        await check_pool(pool, run)


@pytest.mark.parametrize(
    "sent", [b"", b"po", b"\n", b"\0\xff\n", b"x" * 10_000, b"GET / HTTP/1.1\r\n\r\n", b"pool\npool\n"], ids=repr
)
async def test_garbage(sent: bytes) -> None:
    async with opened() as (pool, run):
        async with await connect(run) as stream:
            if sent:
                await stream.send_all(sent)
            await stream.send_eof()
            found = await answer(stream)
        if sent.startswith(b"pool\n"):
            assert json.loads(found)["pool"] == "looked at"
        elif b"\n" in sent[:257]:
            assert "answers no such question; it answers: pool, host" in json.loads(found)["error"]
        else:
            assert found == b""
        await check_pool(pool, run)


async def test_clients_that_ask_nothing_are_sent_away() -> None:
    async with opened() as (pool, run):
        clients = [await connect(run) for _ in range(100)]
        await check_pool(pool, run)  # behind the hundred
        assert await answer(clients[0]) == b""
        for client in clients:
            await client.aclose()
        await check_pool(pool, run)


async def test_a_hundred_clients_get_their_answers() -> None:
    async with opened() as (pool, run):
        done = 0

        async def look() -> None:
            nonlocal done
            assert (await ask(run, "pool", PoolLook, 30)).pool == "looked at"
            done += 1

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(look)
        assert done == 100
        await check_pool(pool, run)


async def test_a_client_that_does_not_read_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as (pool, run):
        monkeypatch.setattr(pool._inspection, "_answers", {"pool": lambda: "x" * (8 << 20), "host": lambda: 1})
        slow = [await connect(run) for _ in range(4)]
        for stream in slow:
            await stream.send_all(b"pool\n")
        for stream in slow:
            assert (await stream.receive_some(1)) == b'"'
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
    # The pool has closed while they were reading: what was sent ends.
    for stream in slow:
        assert len(await answer(stream)) < 8 << 20
        await stream.aclose()


async def test_a_question_that_fails_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> object:
        raise ZeroDivisionError

    async with opened() as (pool, run):
        with monkeypatch.context() as patch:
            patch.setattr(pool._inspection, "_answers", {"pool": fail})
            with pytest.raises(NoAnswer, match="has hung up"):
                await ask(run, "pool", PoolLook, 30)
        assert "answering `snakepit top` failed" in caplog.text
        await check_pool(pool, run)


async def test_the_host_tells_its_tasks() -> None:
    async with opened() as (_, run):
        look = await ask(run, "host", HostLook, 30)
        assert look.host == os.getpid()
        (here,) = [task for task in look.tasks if any(frame[2] == "_exchange" for frame in task.frames)]
        assert here.frames[-1][2] in ("_real_async_yield", "_async_yield")
        assert look.tasks[0].depth == 0 < here.depth


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE], ids=["full", "descriptors"])
async def test_a_pool_without_room_for_it_runs_on(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_path: Path) -> trio.socket.SocketType:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(inspection, "_LOOK_AGAIN", 0.01)
    monkeypatch.setattr(inspection, "_NO_ROOM", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "_listen", refuse)
        async with opened() as (pool, run):
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3
            with pytest.raises(NoAnswer, match="the host has no socket for this: its log says why"):
                await ask(run, "pool", PoolLook, 30)
            await trio.sleep(0.1)
            (warned,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            why = OSError(number, os.strerror(number))
            assert warned == f"`snakepit top` and `dump` cannot look at pool 'looked at', which runs on: {why}"
            patch.undo()
            while not Path(path_of(run)).exists():
                await trio.sleep(0.01)
            await check_pool(pool, run)


async def test_a_path_that_is_too_long(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(inspection, "INSPECTION", "x" * 100)
    async with opened() as (pool, _):
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        assert "which runs on: AF_UNIX path too long" in caplog.text


async def test_the_socket_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_LOOK_AGAIN", 0.01)
    monkeypatch.setattr(inspection, "_NO_ROOM", 0.01)
    async with opened() as (pool, run):
        while not Path(path_of(run)).exists():
            await trio.sleep(0.01)
        Path(path_of(run)).unlink()
        while not Path(path_of(run)).exists():
            await trio.sleep(0.01)
        await check_pool(pool, run)


async def test_who_answers_in_place_of_the_host(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / INSPECTION))
        listener.listen()
        run = RunInfo("1", tmp_path, "p", os.getpid(), 0.0, is_alive=True, workers=())
        with pytest.raises(NoAnswer, match=r"has not answered in 0\.1 s"):
            await ask(run, "pool", PoolLook, 0.1)
        for reply, message in ((b"[1", "cannot be read"), (b'{"pool": 5}', "cannot be read")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, _reply, listener, reply)
                with pytest.raises(NoAnswer, match=message):
                    await ask(run, "pool", PoolLook, 30)


def _reply(listener: socket.socket, reply: bytes) -> None:
    while True:
        client, _ = listener.accept()
        with client, contextlib.suppress(BrokenPipeError):  # the one that has not waited for its answer
            client.recv(100)
            client.sendall(reply)
            return
