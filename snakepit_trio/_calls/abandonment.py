"""Stops a call that its caller has given up: withdraws it, asks for its end, or kills its worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from snakepit_trio._util.log import get_logger
from snakepit_trio._util.patience import comes_within

from .call import Call, CallState, CallWorker

logger = get_logger("snakepit.calls")

_LOOK_AGAIN: Final = 0.005  # seconds
_NUDGE: Final = 0.05  # seconds without an end, until the worker is helped to hear of the cancellation


async def abandon(call: Call, withdraw: Callable[[Call], bool], grace: float) -> None:
    """Stop a call that its caller has given up; returns when none of its code runs.

    `withdraw` takes a call out of its queue, or returns False. If the code of the call does not end within `grace`
    seconds, its worker is killed. If the call runs and its tool has `cancel="kill"`, its worker is killed at once.
    If asking for its end raises what nobody foresees, it is asked once more. If that raises too, the worker is killed.
    Call this in a shielded scope: it takes at most the grace, twice if it is asked again, and the time to kill and reap
    a process.
    """
    call.abandoned = True
    call.chunks.clear()
    if call.state is CallState.QUEUED and withdraw(call):
        call.finish(None)
    if call.is_over or call.worker is None:
        return
    worker = call.worker
    why = await _ask_twice(call, worker, grace)
    if not call.is_over and call.id in worker.calls:  # else it has ended there, and only the host works for it
        worker.kill(f"was killed: {why}", for_a_call=True)
    await _until_over(call)


async def _ask_twice(call: Call, worker: CallWorker, grace: float) -> str:
    """Ask the worker to end a call. Returns why it must be killed if the call is not over then."""
    try:
        return await _ask(call, worker, grace)
    except Exception:
        logger.exception("%r could not be asked to end, and is asked again", call.name)
    try:
        return await _ask(call, worker, grace)
    except Exception as error:
        # Whoever waits here must not be told that the call is over while its code runs.
        logger.exception("%r could not be asked to end, and its worker is killed", call.name)
        return f"{call.name!r} was cancelled, and could not be asked to end: {error!r}"


async def _ask(call: Call, worker: CallWorker, grace: float) -> str:
    if not worker.must_be_killed_to_stop(call):
        worker.cancel(call)
        end = _End(call, worker)
        stands = True
        while stands and not call.is_over:  # the grace begins when the worker has left the last breakpoint
            stands = worker.stands
            await comes_within(grace, end.comes)
            stands = stands or worker.stands
    if worker.kills_to_cancel:
        return f"{call.name!r} was cancelled, and its protocol has no other way to stop it"
    if worker.must_be_killed_to_stop(call):
        return f"{call.name!r} was cancelled, and is a tool with cancel='kill'"
    return f"{call.name!r} did not end within {grace} s of its cancellation"


class _End:
    """The end of a call whose worker was asked to stop it."""

    def __init__(self, call: Call, worker: CallWorker) -> None:
        self._call = call
        self._worker = worker
        self._nudge_at = trio.current_time() + _NUDGE

    async def comes(self) -> None:
        """Wait until the call is over, or can only be stopped by killing its worker."""
        # The call may start while its cancellation is on the way to the worker. Only the ledger shows that.
        while not self._call.is_over and not self._worker.must_be_killed_to_stop(self._call):
            with trio.move_on_after(_LOOK_AGAIN):
                await self._call.wait()
            if trio.current_time() >= self._nudge_at:
                self._nudge_at = trio.current_time() + _NUDGE
                with logger.tolerates("nudging a worker"):  # it is a help: without it, the call ends later
                    self._worker.nudge(self._call)


async def _until_over(call: Call) -> None:
    while not call.is_over:
        await call.wait()
