"""Workers that break the rules of the link: each costs its own life and nothing else."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.hostile import open_helper


def _open(how: str) -> AbstractAsyncContextManager[snakepit.Pool]:
    return open_helper("bad_worker.py", "--how", how, workers=2, max_frame_bytes=100_000)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("unknown_kind", snakepit.WorkerCrashed, "unknown kind 77"),
        ("too_large", snakepit.WorkerCrashed, r"over the limit of 100000 bytes"),
        ("broken_error", snakepit.WorkerCrashed, "the body of an error frame is broken"),
        ("no_batch", snakepit.WorkerCrashed, "broke the protocol"),
        ("twice", snakepit.WorkerCrashed, "which is not open"),
        ("chunk", snakepit.WorkerCrashed, "which is no open stream"),
        ("other_call", snakepit.WorkerCrashed, "which is no open plain call"),
        ("progress_of_another", snakepit.WorkerCrashed, "progress of call 3, which is not open"),
        ("progress_too_late", snakepit.WorkerCrashed, "progress of call 1, which is not open"),
        ("progress_of_nobody", snakepit.WorkerCrashed, "progress of call 0, which is not open"),
        ("progress_broken", snakepit.WorkerCrashed, "a report of progress is broken"),
        ("progress_bool", snakepit.WorkerCrashed, "a report of progress is broken"),
        ("progress_nan", snakepit.WorkerCrashed, "that no tool can report"),
        ("progress_negative", snakepit.WorkerCrashed, "that no tool can report"),
        ("progress_long_note", snakepit.WorkerCrashed, "that no tool can report"),
        ("progress_loan", snakepit.WorkerCrashed, "a frame of kind 20 with a loan"),
        ("event_unknown", snakepit.WorkerCrashed, "an event 'party', which a worker does not send"),
        ("event_of_a_call", snakepit.WorkerCrashed, "a frame of kind 13 for call 1, not for the link"),
        ("log_broken", snakepit.WorkerCrashed, "a log record is broken"),
        ("log_of_text", snakepit.WorkerCrashed, "a log record is broken"),
        ("hang_up", snakepit.WorkerCrashed, "closed its link"),
    ],
)
async def test_a_broken_rule_ends_that_worker_and_never_the_pool(
    how: str, error: type[Exception], message: str
) -> None:
    async with _open(how) as pool:
        pids = {worker.pid for worker in pool.list_workers()}
        with pytest.raises(error, match=message):
            await pool.execute("anything", timeout=20)
        while not (new := {worker.pid for worker in pool.list_workers()} - pids - {None}):
            await trio.sleep(0.01)
        await pool.await_ready(20)
        # A worker that hangs up is not at fault in what it said, so the call is tried on others first.
        assert len(new) == 1 or how == "hang_up"


async def test_a_result_that_cannot_be_read_fails_its_call_and_its_worker_lives() -> None:
    async with _open("broken_result") as pool:
        for _ in range(2):
            with pytest.raises(snakepit.DecodeError, match="'anything' sent back what cannot be read"):
                await pool.execute("anything", timeout=20)
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("wrong_secret", "its hello has the wrong secret"),
        ("wrong_version", "it speaks version 99 of the link"),
        ("wrong_tools", "its hello describes its tools wrongly: Invalid enum value 'politely'"),
        ("no_hello", "before hello"),
    ],
)
async def test_a_wrong_hello_is_a_failed_start(how: str, message: str) -> None:
    with pytest.raises(snakepit.WorkerStartError, match=message):
        async with _open(how):
            pytest.fail("the block was entered")
