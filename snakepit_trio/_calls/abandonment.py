"""Stops a call that its caller has given up: withdraws it, asks for its end, or kills its worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from snakepit_trio._util.patience import comes_within

from .call import Call, CallState, CallWorker

_LOOK_AGAIN: Final = 0.005  # seconds


async def abandon(call: Call, withdraw: Callable[[Call], bool], grace: float) -> None:
    """Stop a call that its caller has given up; returns when none of its code runs.

    `withdraw` takes a call out of its queue, or returns False. If the code of the call does not end within `grace`
    seconds, its worker is killed. If the call runs and its tool has `cancel="kill"`, its worker is killed at once.
    Call this in a shielded scope: it takes at most the grace and the time to kill and reap a process.
    """
    call.abandoned = True
    call.chunks.clear()
    if call.state is CallState.QUEUED and withdraw(call):
        call.finish(None)
    if call.is_over or call.worker is None:
        return
    worker = call.worker
    if not worker.must_be_killed_to_stop(call):
        worker.cancel(call)
        await comes_within(grace, partial(_until_over_or_to_be_killed, call, worker))
    if not call.is_over and call.id in worker.calls:  # else it has ended there, and only the host works for it
        worker.kill(f"was killed: {_why_killed(call, worker, grace)}", for_a_call=True)
    await _until_over(call)


def _why_killed(call: Call, worker: CallWorker, grace: float) -> str:
    if worker.kills_to_cancel:
        return f"{call.name!r} was cancelled, and its protocol has no other way to stop it"
    if worker.must_be_killed_to_stop(call):
        return f"{call.name!r} was cancelled, and is a tool with cancel='kill'"
    return f"{call.name!r} did not end within {grace} s of its cancellation"


async def _until_over_or_to_be_killed(call: Call, worker: CallWorker) -> None:
    if not worker.is_killed_to_stop(call):
        await _until_over(call)
        return
    # The call may start while its cancellation is on the way to the worker. Only the ledger shows that.
    while not call.is_over and not worker.must_be_killed_to_stop(call):
        with trio.move_on_after(_LOOK_AGAIN):
            await call.wait()


async def _until_over(call: Call) -> None:
    while not call.is_over:
        await call.wait()
