"""What workers of 0.13 keep for the sessions that they meet, and what they find in their environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from tests.peers.test_grpc_contract import google, open_google


async def test_heartbeats_of_a_worker_are_bounded(stubs: Path) -> None:
    """A worker of 0.13 starts a heartbeat for each session id that it meets, and ends it when the host says so."""
    async with open_google(stubs, "0.13", workers=1, ping_interval=0.2) as pool:
        for number in range(500):
            assert await pool.execute("add", {"a": 1, "b": number}) == 1 + number
        assert await pool.execute("heartbeats") == [1, 1]
        for number in range(150):
            async with pool.session(f"s{number}") as session:
                assert await session.execute("add", {"a": 1, "b": number}) == 1 + number
        now, most = await pool.execute("heartbeats")
        assert 1 < now <= most <= 1 + 64 + 8  # sessions that are not used any more
        for number in range(150):
            await pool.sessions.delete_session(f"s{number}")
        with trio.fail_after(30):
            while (await pool.execute("heartbeats"))[0] > 1:
                await trio.sleep(1)  # a silent worker is pinged
        for number in range(3):  # a call finds nothing of another call's session
            assert await pool.execute("set_var", {"name": "x", "value": number}) == 1
        assert await pool.sessions.list_sessions() == []


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
