"""A failed start is told by the adapter's own error, at once, whatever of its end is noticed first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.stdio_tools import WORKER
from tests.helpers.workers import TOOLS

CONTRACT = snakepit.GrpcBridge(script=Path(__file__).parents[1] / "helpers" / "google_peer" / "worker.py")
NO_DATABASE = "could not start: ValueError: no database"


async def failure_of(adapter: str, **settings: Any) -> snakepit.WorkerStartError:
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(f"tests.helpers.start_tools:{adapter}", workers=1, start_timeout=60, **settings):
            pytest.fail("the block was entered")
    return caught.value


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("Raises", NO_DATABASE),
        ("LeavesThreads", NO_DATABASE),
        ("EndsSlowly", NO_DATABASE),
        ("RaisesLater", NO_DATABASE),
        ("ExitsWithText", "could not start: no licence"),
        ("ExitsWithZero", "could not start: it called sys.exit(0)"),
        (
            "Unspeakable",
            "could not start: tests.helpers.start_tools.Unspeakable.setup.<locals>.Silent: <its str() raised Runt",
        ),
        ("SaysMuch", r"could not start: ValueError: no \ud800 database xxx"),
        ("Interrupted", "could not start: KeyboardInterrupt"),
        (
            "NotThere",
            (
                "could not start: adapter 'tests.helpers.start_tools:NotThere': "
                "tests.helpers.start_tools has no class NotThere"
            ),
        ),
    ],
)
async def test_the_headline_is_the_adapters_own_error(adapter: str, message: str, concurrency: int) -> None:
    failure = await failure_of(adapter, concurrency=concurrency)
    assert str(failure).startswith(f"worker pool-1 {message}")
    assert "link" not in str(failure)
    assert "SIGKILL" not in str(failure)
    assert len(str(failure)) < 2500
    assert str(failure) == f"worker pool-1 could not start: {failure.last_words}"


async def test_a_start_that_failed_does_not_wait_for_what_does_not_end() -> None:
    began = time.monotonic()
    failure = await failure_of("NeverEnds")
    assert str(failure) == f"worker pool-1 {NO_DATABASE}"
    assert time.monotonic() - began < 50, "it was told after start_timeout"


async def test_a_worker_that_closes_its_link_before_it_is_ready() -> None:
    failure = await failure_of("ClosesAll")
    assert str(failure) == "worker pool-1 closed its link"
    assert failure.exit_code == -9


async def test_many_failed_starts_at_once_are_all_told_alike() -> None:
    told: list[str] = []

    async def fail() -> None:
        told.append(str(await failure_of("Raises")))

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(fail)
    assert told == [f"worker pool-1 {NO_DATABASE}"] * 12


async def test_a_replacement_that_cannot_start_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = tmp_path / "lock"
    async with snakepit.open_pool("tests.helpers.start_tools:Locked", workers=1, options={"path": str(lock)}) as pool:
        lock.touch()
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("die")
        with trio.fail_after(60):
            while "could not start" not in caplog.text:
                await trio.sleep(0.05)
        lock.unlink()
        assert await pool.execute("one", timeout=60) == 1
    assert "worker pool-1 could not start: RuntimeError: it is locked" in caplog.text


@pytest.mark.parametrize(
    "adapter",
    [TOOLS, snakepit.StdioJson(WORKER), CONTRACT],
    ids=["link", "stdio", "grpc"],
)
async def test_a_fault_right_after_the_process_was_started_ends_it(
    adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(*_args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("snakepit_trio.launchers.process.OomWatch", starve)
    with pytest.raises(snakepit.WorkerStartError, match="could not be started: MemoryError"):
        async with snakepit.open_pool(adapter, workers=1):
            pytest.fail("the block was entered")
