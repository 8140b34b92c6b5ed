"""The telemetry of foreign workers: events and log records of the host, and what a broken one does not do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio

import bridge_py
import snakepit_trio as snakepit
from tests.helpers import google_peer

SCRIPT = Path(google_peer.__file__).with_name("telling_worker.py")
OWN = Path(bridge_py.__file__).with_name("__main__.py")


def opened(stubs: Path, kind: str, **config: Any) -> Any:
    adapter = snakepit.GrpcBridge(script=SCRIPT, contract="0.13", args=["--contract", "0.13"])
    return snakepit.open_pool(adapter, workers=1, env={"GOOGLE_STUBS": str(stubs), "TELEMETRY": kind}, **config)


async def test_events_and_log_records(stubs: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[snakepit.Event] = []
    with trio.fail_after(60):
        async with opened(stubs, "obeys", ping_interval=0.1) as pool:
            await _logged(caplog, "burns")
            pool.events.attach("foreign.*", heard.append)  # from now on it sends all
            while len(heard) < 4:
                await trio.sleep(0.01)
            (worker,) = pool.list_workers()
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3
    first, second, third, fourth = heard[:4]
    assert first.name == "foreign.tool.execution.stop"
    ours = {"worker": worker.id, "pid": worker.pid}
    assert first.metadata == {"tool": "add", "unit": "ms", "correlation_id": "abc", **ours}
    assert first.measurements == {"duration": 7, "part": 0.5, "name_": 1}
    assert (second.name, second.metadata) == ("foreign.worker.crashed", {r"odd\x1b[2J": r"a\x1b[2Jb", **ours})
    assert third.name == "foreign."
    assert len(fourth.name) < 3_000
    assert sum(map(len, map(str, fourth.metadata.values()))) < 60_000
    record: Any = next(each for each in caplog.records if "burns" in each.getMessage())
    assert (record.name, record.levelname, record.getMessage()) == ("their.code", "ERROR", r"it \x1b[31mburns")
    assert (record.exc_text, record.worker, record.pid) == ("Error: fire", worker.id, worker.pid)


async def _logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    while not any(text in record.getMessage() for record in caplog.records):
        await trio.sleep(0.01)


@pytest.mark.parametrize("kind", ["broken", "flood", "large", "silent", "ends"])
async def test_odd_telemetry_harms_no_call(stubs: Path, kind: str) -> None:
    heard: list[snakepit.Event] = []
    with trio.fail_after(60):
        async with opened(stubs, kind) as pool:
            pool.events.attach("foreign.*", heard.append)
            pid = pool.list_workers()[0].pid
            with trio.move_on_after(2):
                while True:
                    assert await pool.execute("add", {"a": 1, "b": 2}) == 3
            assert pool.list_workers()[0].pid == pid
            while kind == "flood" and not heard:
                await trio.sleep(0.01)
    assert len(heard) < 2_000 + 1_000 * 60


async def test_a_worker_without_telemetry(stubs: Path) -> None:
    script = SCRIPT.with_name("worker.py")
    adapter = snakepit.GrpcBridge(script=script, contract="0.4", telemetry=True)
    with trio.fail_after(60):
        async with snakepit.open_pool(adapter, workers=1, env={"GOOGLE_STUBS": str(stubs)}) as pool:
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3
            assert pool.get_stats().restarts == 0


async def test_our_own_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "snakepit.worker")
    heard: list[snakepit.Event] = []
    adapter = snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.contract_tools:ContractTools", contract="0.13")
    with trio.fail_after(60):
        async with snakepit.open_pool(adapter, workers=1, ping_interval=0.1, log_level="DEBUG") as pool:
            pool.events.attach("foreign.*", heard.append)
            while not heard:
                await pool.execute("add", {"a": 1, "b": 2})
                await trio.sleep(0.01)
            await _logged(caplog, "DEBUG asyncio: Using selector")
    told = [record for record in caplog.records if record.name == "snakepit.worker.pool-1"]
    assert {record.levelname for record in told if "Using selector" in record.getMessage()} == {"DEBUG"}
    assert not [record for record in told if "hpack" in record.getMessage()]  # it would tell tokens
    assert heard[0].name == "foreign.call.ended"
    assert (heard[0].metadata["tool"], heard[0].metadata["worker"]) == ("add", "pool-1")
    assert heard[0].measurements["seconds"] >= 0


@pytest.mark.parametrize("telemetry", ["yes", 1])
def test_the_setting_is_checked(telemetry: Any) -> None:
    with pytest.raises(snakepit.UsageError, match="telemetry="):
        snakepit.GrpcBridge(script=SCRIPT, telemetry=telemetry)


def test_the_default_is_the_contracts() -> None:
    assert snakepit.GrpcBridge(script=SCRIPT, contract="0.13").has_telemetry
    assert not snakepit.GrpcBridge(script=SCRIPT, contract="0.4").has_telemetry
    assert snakepit.GrpcBridge(script=SCRIPT, contract="0.4", telemetry=True).has_telemetry
