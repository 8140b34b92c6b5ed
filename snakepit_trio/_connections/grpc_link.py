"""The link through a grpclib channel, as our own worker processes use it.

Foreign exceptions end here: the code that runs a link sees `LinkLost` or `ProtocolError`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Final, NoReturn, Self

import attrs
import grpclib.client
import grpclib.const
import grpclib.exceptions

from bridge_py.http2 import BoundedChannel
from bridge_py.link.channel import LINK_METHOD, BatchCodec, bound_batches, link_configuration, remote_configuration
from bridge_py.link.silence import SilenceWatch
from bridge_py.wire.errors import ProtocolError, RemoteProtocolError, UsageError
from bridge_py.wire.frames import MOST_FRAMES
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.log import get_logger

from .base import ConnectionContext
from .lane import SECONDS_PER_TURN, Lane, Pipes
from .link import LinkConnection, LinkLost, PeerLost

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


_REDIAL: Final = 0.2  # seconds


@attrs.frozen
class TcpAddress:
    """The address of a worker on another machine, and what is known of it.

    `tls` checks the worker's certificate for `server_name`. `silence` is the time in seconds after which a link is lost
    that nothing comes on, and `frozen` the time if the machine answers and its process says nothing. Raises
    `UsageError` without TLS.
    """

    host: str
    port: int
    tls: ssl.SSLContext = attrs.field(repr=False)
    server_name: str
    silence: float
    frozen: float

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.tls, ssl.SSLContext) or not self.tls.check_hostname:
            raise UsageError(
                f"{self.host}:{self.port}: a link over TCP needs TLS that checks the worker's name: give certificates"
            )


class GrpcLink(LinkConnection):
    """One channel, to a Unix socket's path or over TCP, and one stream; and a lane beside it, if there are `pipes`.

    `nudge` sends the worker the signal at which its main thread leaves its other threads a turn.
    """

    max_frames = MOST_FRAMES
    seconds_per_turn = SECONDS_PER_TURN

    def __init__(
        self,
        context: ConnectionContext,
        loop: AsyncioLoop,
        address: str | TcpAddress,
        secret: str,
        pid: int,
        connected: Callable[[], None],
        pipes: Pipes | None = None,
        nudge: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(context, secret, pid, connected)
        self.flush = self._write_soon
        self.has_lane = pipes is not None
        self._pipes = pipes
        self._lane: Lane | None = None
        self._loop = loop
        self._address = address
        self._nudge = nudge
        self._why_lost: str | None = None
        #: Called when the link is over.
        self.when_over: Callable[[], None] = _do_nothing
        self._to_write: asyncio.Event | None = None
        self._dialled: BoundedChannel | None = None
        self._refusal = ""

    @property
    def unreached(self) -> str:
        if self._dialled is None or not isinstance(self._address, TcpAddress):
            return ""
        said = self._refusal or ("" if self._dialled.has_connected else " does not answer")
        return f"{self._address.host}:{self._address.port}{said}" if said else ""

    async def carry(self) -> NoReturn:
        try:
            await self._loop.run_coroutine(self._converse())
        finally:
            self.when_over()
            if self._lane is not None:
                self._lane.end()  # its pipes are closed soon
        raise LinkLost("the worker closed the link")

    def open_lane(self) -> None:
        assert self._pipes is not None
        self._lane = Lane(self._pipes, self, self.max_batch)
        self.flush = self._lane.flush
        self.carry_also(self._lane.read)
        self.carry_also(self._lane.write)

    def nudge(self) -> None:
        if self._nudge is not None:
            self._nudge()

    def read_rest(self) -> None:
        self.handle_rest()
        if self._lane is not None:
            self._lane.drain()

    def _write_soon(self) -> None:
        if self._to_write is not None:
            self._to_write.set()

    async def _converse(self) -> None:
        channel = _channel(self._address)
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        with _TranslatedErrors():
            watch = None
            try:
                if isinstance(self._address, TcpAddress):
                    watch = await self._dial(channel, self._address)
                async with channel.request(LINK_METHOD, cardinality, bytes, bytes) as stream:
                    await stream.send_request()
                    bound_batches(stream._stream, self.max_batch)
                    await self._pump(channel, stream)
            except Exception as error:
                if channel.abuse is not None:
                    raise RemoteProtocolError(f"its channel is closed: it sent {channel.abuse}") from error
                if self._why_lost is not None:
                    raise PeerLost(self._why_lost) from error
                raise
            finally:
                channel.close()
                if watch is not None:
                    watch.close()
                    channel.abort()  # TLS would wait for the goodbye of a machine that may be gone

    async def _dial(self, channel: BoundedChannel, address: TcpAddress) -> SilenceWatch:
        # A worker that is still starting accepts no connection. The time that it has to start bounds this. A refusal
        # may come from a firewall: if nobody listens any more, the agent tells that the worker has ended.
        self._dialled = channel
        while True:
            try:
                protocol = await channel.__connect__()
                break
            except ssl.SSLCertVerificationError as error:
                raise RemoteProtocolError(f"its certificate is not the worker's: {error.verify_message}") from error
            except OSError as error:
                # A handshake that takes too long is that of a worker that is still starting.
                is_slow = isinstance(error, ConnectionAbortedError)
                self._refusal = "" if is_slow else f": {error or type(error).__name__}"
                logger.debug("a worker is dialled again", exc_info=True)
                await asyncio.sleep(_REDIAL)

        self._refusal = ""

        def lose(why: str) -> None:
            self._why_lost = why
            channel.abort()

        connection = protocol.connection._transport.get_extra_info("socket")
        return SilenceWatch(connection, address.silence, lose, address.frozen)

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


def _do_nothing() -> None:
    pass


def _channel(address: str | TcpAddress) -> BoundedChannel:
    if isinstance(address, str):
        return BoundedChannel(path=address, codec=BatchCodec(), config=link_configuration())
    configuration = remote_configuration(address.server_name)
    return BoundedChannel(address.host, address.port, codec=BatchCodec(), ssl=address.tls, config=configuration)


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
