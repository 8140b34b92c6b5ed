"""The link through a grpclib channel, as our own worker processes use it.

Foreign exceptions end here: the code that runs a link sees `LinkLost` or `ProtocolError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, NoReturn, Self

import grpclib.client
import grpclib.const
import grpclib.exceptions

from bridge_py.http2 import BoundedChannel
from bridge_py.link.channel import LINK_METHOD, BatchCodec, bound_batches, link_configuration
from bridge_py.wire.errors import ProtocolError, RemoteProtocolError
from bridge_py.wire.frames import MOST_FRAMES
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.log import get_logger

from .base import ConnectionContext
from .lane import SECONDS_PER_TURN, Lane, Pipes
from .link import LinkConnection, LinkLost

logger = get_logger("snakepit.link")

_BYTES_PER_TURN: Final = 64 * 1024
_BATCH_COST: Final = 64  # an empty batch costs about as much work as so many bytes

_FOREIGN = (
    grpclib.exceptions.GRPCError,
    grpclib.exceptions.StreamTerminatedError,
    grpclib.exceptions.ProtocolError,
    OSError,
    EOFError,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
    # grpclib deletes its transport when a connection is lost, even while it is about to use it.
    AttributeError,
)


# What grpclib raises for a compressed message, and for a stream that ends in the middle of one.
_BROKEN = (NotImplementedError, AssertionError)


class GrpcLink(LinkConnection):
    """One channel, to the socket at `path`, and one stream; and a lane beside it, if there are `pipes`."""

    max_frames = MOST_FRAMES
    seconds_per_turn = SECONDS_PER_TURN

    def __init__(
        self,
        context: ConnectionContext,
        loop: AsyncioLoop,
        path: str,
        secret: str,
        pid: int,
        connected: Callable[[], None],
        pipes: Pipes | None = None,
    ) -> None:
        super().__init__(context, secret, pid, connected)
        self.flush = self._write_soon
        self.has_lane = pipes is not None
        self._pipes = pipes
        self._lane: Lane | None = None
        self._loop = loop
        self._path = path
        self._to_write: asyncio.Event | None = None

    async def carry(self) -> NoReturn:
        try:
            await self._loop.run_coroutine(self._converse())
        finally:
            if self._lane is not None:
                self._lane.end()  # its pipes are closed soon
        raise LinkLost("the worker closed the link")

    def open_lane(self) -> None:
        assert self._pipes is not None
        self._lane = Lane(self._pipes, self, self.max_batch)
        self.flush = self._lane.flush
        self.carry_also(self._lane.read)
        self.carry_also(self._lane.write)

    def read_rest(self) -> None:
        self.handle_rest()
        if self._lane is not None:
            self._lane.drain()

    def _write_soon(self) -> None:
        if self._to_write is not None:
            self._to_write.set()

    async def _converse(self) -> None:
        channel = BoundedChannel(path=self._path, codec=BatchCodec(), config=link_configuration())
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        with _TranslatedErrors():
            try:
                async with channel.request(LINK_METHOD, cardinality, bytes, bytes) as stream:
                    await stream.send_request()
                    bound_batches(stream._stream, self.max_batch)
                    await self._pump(channel, stream)
            except Exception as error:
                if channel.abuse is not None:
                    raise RemoteProtocolError(f"its channel is closed: it sent {channel.abuse}") from error
                raise
            finally:
                channel.close()

    async def _pump(self, channel: BoundedChannel, stream: grpclib.client.Stream[bytes, bytes]) -> None:
        # Reading the worker's hello opens the lane, and our own hello does not belong there: so it is sent first.
        await stream.send_message(self.next_batch())
        self._to_write = asyncio.Event()
        self._to_write.set()
        writer = asyncio.ensure_future(self._write(channel, stream, self._to_write))
        try:
            taken = 0
            while (data := await stream.recv_message()) is not None:
                self.receive(data)
                # Batches that have come already are read without a wait. Many of them must not keep the loop.
                taken += _BATCH_COST + len(data)
                while self.is_late or taken > _BYTES_PER_TURN:
                    taken = 0
                    await asyncio.sleep(0)
                    self.handle_late()
        finally:
            self._to_write = None
            writer.cancel()
            # Without this, leaving the stream would wait for ever for the worker's last message.
            if channel.is_stuck:
                stream._cancel_done = True  # the frame that says so would wait for ever too
            else:
                await stream.cancel()  # noqa: ASYNC102 - asyncio code: it sends one frame

    async def _write(
        self, channel: BoundedChannel, stream: grpclib.client.Stream[bytes, bytes], ready: asyncio.Event
    ) -> None:
        try:
            while True:
                await ready.wait()
                ready.clear()
                while data := self.next_batch():
                    await stream.send_message(data)
        except Exception:
            # Nothing awaits the writer. The reader sees that the channel has closed.
            logger.debug("writing to a worker failed", exc_info=True)
            channel.close()


class _TranslatedErrors:
    """Turns the exceptions of grpclib, asyncio and the system into `LinkLost`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            return
        if isinstance(error, AttributeError):
            logger.debug("the link was lost", exc_info=error)
        if isinstance(error, _BROKEN):
            raise RemoteProtocolError(f"its channel is broken: {error}") from error
        if isinstance(error, _FOREIGN) and not isinstance(error, ProtocolError):
            raise LinkLost(f"the link was lost: {error or type(error).__name__}") from error
