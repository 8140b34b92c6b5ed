"""Host programs that share sessions: what one has begun goes on with the other, and the late one writes no more."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.command import ROOT, environment
from tests.helpers.epoch_tools import TOOLS, make_pipes, open_store

pytestmark = pytest.mark.processes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pipes(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis server; empty for a file. It starts before a test counts the processes."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("redis").url)


@pytest.fixture
def place(server: str, tmp_path: Path) -> tuple[str, str]:
    """Where the hosts have their store, and the prefix of its keys."""
    if not server:
        return str(tmp_path / "sessions.db"), ""
    from tests.helpers.redis_stores import new_prefix  # it needs coredis

    return server, new_prefix()


@contextlib.contextmanager
def host_program(place: tuple[str, str], folder: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.helpers.epoch_tools", *place, str(folder), how]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(60)


async def text_from(pipe: Path) -> str:
    return await trio.to_thread.run_sync(pipe.read_text, abandon_on_cancel=True)


@contextlib.asynccontextmanager
async def other_host(place: tuple[str, str]) -> AsyncIterator[snakepit.Pool]:
    async with (
        open_store(*place) as store,
        snakepit.open_pool(TOOLS, workers=1, store=store) as pool,
    ):
        yield pool


def answer_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("how", ["handle", "pool", "looks", "taken"])
async def test_a_host_that_was_stopped_meanwhile_writes_no_more(folder: Path, place: tuple[str, str], how: str) -> None:
    with trio.fail_after(120), host_program(place, folder, how) as late:
        assert await text_from(folder / "begun") == "begun"
        late.send_signal(signal.SIGSTOP)
        async with other_host(place) as pool, pool.session("s") as session:
            before = await session.info()
            await session.execute("write", {"name": "x", "value": "of the other host"})
            after = await session.info()
            assert after.epoch == before.epoch + 1
            assert after.host_id == pool.sessions.hub.epochs.host_id != before.host_id
            await trio.to_thread.run_sync((folder / "go").write_text, "go")
            late.send_signal(signal.SIGCONT)
            answer = await trio.to_thread.run_sync(answer_of, late)
            assert answer.startswith("StaleEpoch")
            assert "session 's' is at epoch" in answer
            assert await session.get_variable_value("x") == "of the other host"
            assert (await session.info()).epoch == after.epoch


async def test_a_session_goes_on_with_another_host_when_its_host_was_killed(
    folder: Path, place: tuple[str, str]
) -> None:
    with trio.fail_after(120), host_program(place, folder, "begins") as first:
        assert await text_from(folder / "begun") == "begun"
        first.kill()
        first.wait()
        async with other_host(place) as pool, pool.session("s") as session:
            before = await session.info()
            assert await session.get_variable_value("x") == 2
            assert await session.get_program("p") == {"step": 1}
            assert await session.execute("write", {"name": "x", "value": 3}) == 2
            after = await session.info()
            assert (after.epoch, after.worker_id) == (before.epoch + 1, pool.list_workers()[0].id)
            assert after.host_id != before.host_id


async def test_two_hosts_take_turns(place: tuple[str, str]) -> None:
    async with other_host(place) as one, other_host(place) as two:
        await one.sessions.create_session("s", ttl=None)
        for number in range(6):
            async with (one, two)[number % 2].session("s") as session:
                before = await session.execute("write", {"name": "x", "value": number})
                assert before == (number - 1 if number else None)
                assert (await session.info()).epoch == number + 1
