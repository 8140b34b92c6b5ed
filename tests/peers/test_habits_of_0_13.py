"""What workers of 0.13 keep for the sessions that they meet, and what they find in their environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._connections import contract
from tests.peers.test_grpc_contract import google, open_google


@pytest.mark.parametrize(("idle", "bound"), [(0.0, 64), (1000.0, 256)])
async def test_heartbeats_of_a_worker_are_bounded(
    stubs: Path, monkeypatch: pytest.MonkeyPatch, idle: float, bound: int
) -> None:
    """A worker of 0.13 starts a heartbeat for each session id that it meets, and ends it when the host says so."""
    monkeypatch.setattr(contract, "_IDLE", idle)
    async with open_google(stubs, "0.13", workers=1, ping_interval=0.2) as pool:
        for number in range(500):
            assert await pool.execute("add", {"a": 1, "b": number}) == 1 + number
        assert await pool.execute("heartbeats") == [1, 1]
        for number in range(bound + 50):
            async with pool.session(f"s{number}") as session:
                assert await session.execute("add", {"a": 1, "b": number}) == 1 + number
        now, most = await pool.execute("heartbeats")
        assert bound <= now <= most <= 1 + bound + 8  # sessions that are not used any more
        for number in range(bound + 50):
            await pool.sessions.delete_session(f"s{number}")
        monkeypatch.setattr(contract, "_IDLE", 0.0)
        with trio.fail_after(30):
            while (await pool.execute("heartbeats"))[0] > 1:
                await trio.sleep(1)  # a silent worker is pinged
        for number in range(3):  # a call finds nothing of another call's session
            assert await pool.execute("set_var", {"name": "x", "value": number}) == 1
        assert await pool.sessions.list_sessions() == []


async def test_heartbeats_hear_whether_the_session_lives(stubs: Path) -> None:
    async with open_google(stubs, "0.13", workers=1) as pool:
        assert await pool.execute("set_var", {"name": "x", "value": 1}) == 1
        async with pool.session("kept") as session:
            assert await session.execute("set_var", {"name": "x", "value": 1}) == 1
        await pool.execute("set_var", {"name": "x", "value": 1}, session="gone")
        temporary, *_ = await pool.execute("sessions")
        assert await pool.execute("beats", {"session_ids": [temporary, "kept", "gone"]}) == [True, True, True]
        await pool.sessions.delete_session("gone")
        await pool.sessions.create_session("of others")
        named = ["kept", "gone", "of others", "unknown", ""]
        assert await pool.execute("beats", {"session_ids": named}) == [True, False, False, False, False]


async def test_a_session_that_has_left_a_worker_is_cleaned_up_there(
    stubs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = []
    clean = contract.ContractConnection._clean

    async def note(connection: contract.ContractConnection, session_id: str) -> None:
        cleaned.append((connection._context.worker_id, session_id))
        await clean(connection, session_id)

    monkeypatch.setattr(contract, "_IDLE", 0.0)
    monkeypatch.setattr(contract.ContractConnection, "_clean", note)
    async with open_google(stubs, "0.13", workers=2, ping_interval=0.2) as pool, pool.session("s") as session:
        async with trio.open_nursery() as nursery:
            for _ in range(2):  # a worker has one call at a time
                nursery.start_soon(session.execute, "slow", {"seconds": 1})
        with trio.fail_after(30):
            while not cleaned:  # a silent worker is pinged
                await trio.sleep(0.1)
        assert await session.execute("sessions") == ["s"]
        await trio.sleep(1)  # and pinged again
        assert [session_id for _, session_id in cleaned] == ["s"]
        await pool.sessions.delete_session("s")


async def test_a_call_that_uses_no_state_makes_no_session(stubs: Path) -> None:
    """The worker opens a session for each call; the host makes it when the worker uses it."""
    async with open_google(stubs, "0.4", workers=1) as pool:
        for session in (None, "s"):
            assert await pool.execute("add", {"a": 1, "b": 2}, session=session) == 3
            assert await pool.sessions.list_sessions() == []
        assert await pool.execute("set_var", {"name": "x", "value": 1}, session="s") == 1
        assert await pool.sessions.list_sessions() == ["s"]
        await pool.sessions.delete_session("s")
        assert await pool.execute("set_var", {"name": "x", "value": 2}, session="s") == 1


async def test_variables_of_the_environment_win_over_defaults(stubs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEPIT_OTEL_CONSOLE", "true")
    env = {"GOOGLE_STUBS": str(stubs), "SNAKEPIT_LOG_LEVEL": "debug"}
    async with snakepit.open_pool(google("0.13"), env=env, workers=1) as pool:
        assert await pool.execute("variable", {"name": "SNAKEPIT_LOG_LEVEL"}) == "debug"
        assert await pool.execute("variable", {"name": "SNAKEPIT_OTEL_CONSOLE"}) == "true"
    monkeypatch.delenv("SNAKEPIT_OTEL_CONSOLE")
    async with open_google(stubs, "0.13", workers=1) as pool:
        assert await pool.execute("variable", {"name": "SNAKEPIT_LOG_LEVEL"}) == "info"
        assert await pool.execute("variable", {"name": "SNAKEPIT_OTEL_CONSOLE"}) == "false"
