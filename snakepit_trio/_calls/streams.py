"""The iterator over the chunks of one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import trio

from bridge_py.wire.errors import UsageError
from bridge_py.wire.frames import Frame
from snakepit_trio._util.blocks import only_async
from snakepit_trio._util.ownership import OneTaker
from snakepit_trio._util.threads import read_in_thread

from .call import Call

T = TypeVar("T")


class Chunks(AsyncIterator[T]):
    """The chunks of a streaming call, in order, as its tool or generator yields them.

    Iterating raises `ToolError` where the tool raised, `WorkerCrashed` if its worker died, `CallTimeout` when the time
    of the stream is used up, and `CallCancelled` after `Pool.cancel_call`. Chunks that came before the error are
    delivered first, but for `CallCancelled`. Iterating is a checkpoint of trio whenever no chunk is
    there yet. Only one task at a time may iterate: a second one gets `trio.BusyResourceError`. After the stream's
    block, iterating raises `UsageError`.
    """

    def __init__(
        self,
        call: Call,
        window: int,
        decode: Callable[[Call, Frame], Any],
        time_out: Callable[[Call], Awaitable[NoReturn]],
        failed: Callable[[Exception], Exception],
        most_at_once: int,
    ) -> None:
        self._call = call
        self._refill_at = max(1, window // 2)
        self._taken = 0  # the credit that the chunks cost which were taken since the last grant
        self._decode = decode
        self._time_out = time_out
        self._failed = failed
        self._most_at_once = most_at_once  # bytes; larger chunks are read in a thread
        self._taker = OneTaker("stream")
        self._is_left = False

    if not TYPE_CHECKING:
        __iter__ = only_async

    def _leave(self) -> None:
        """End the iteration, because the stream's block is left. A task that waits for a chunk now gets none either."""
        self._is_left = True
        self._call.wake()

    async def __anext__(self) -> T:
        call = self._call
        if call.progress is not None and not self._is_left:
            call.progress.tell()
        if not call.chunks or self._is_left or self._taker.is_taken:
            with self._taker:
                await self._until_there_is_one(call)
        await trio.lowlevel.checkpoint_if_cancelled()
        chunk = call.chunks.popleft()
        self._taken += chunk.number
        # A call that is late gets no more credit: its last chunks could else be followed by further ones, for ever.
        if self._taken >= self._refill_at and not call.is_over and not call.is_late and call.worker is not None:
            call.worker.grant(call, self._taken)
            self._taken = 0
        if len(chunk.body) > self._most_at_once:
            return await self._read_in_thread(call, chunk)
        value: T = self._decode(call, chunk)
        return value

    async def _read_in_thread(self, call: Call, chunk: Frame) -> T:
        with self._taker:
            try:
                value: T = await read_in_thread(self._decode, call, chunk)
            except trio.Cancelled:
                chunk.number = 0  # its cost was counted
                call.chunks.appendleft(chunk)  # the next iteration has it
                raise
            self._check_is_inside()
        return value

    async def _until_there_is_one(self, call: Call) -> None:
        while self._is_left or not call.chunks:
            self._check_is_inside()
            if call.unwanted is not None:  # even if it is over: it must not look complete
                await self._time_out(call)
            if call.is_over:
                if call.progress is not None:
                    call.progress.tell_last()
                if call.failure is not None:
                    raise self._failed(call.failure)
                raise StopAsyncIteration
            if call.is_late:
                await self._time_out(call)
            await (call.wait() if call.progress is None else call.wait_and_tell())

    def _check_is_inside(self) -> None:
        if self._is_left:
            raise UsageError(
                f"the block of this stream of {self._call.name!r} has been left: take its chunks inside it"
            )
