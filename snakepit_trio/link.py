"""The host's end of a link: one grpclib channel, one stream. The only module of the host that touches asyncio.

Foreign exceptions end here: whoever runs a link sees `LinkLost` or `ProtocolError`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import grpclib.client
import grpclib.const
import grpclib.exceptions
import msgspec
import trio

from bridge_py.compression import is_available
from bridge_py.server import LINK_METHOD, RawCodec, link_configuration
from bridge_py.specs import ToolSpec
from bridge_py.transfers import Transfers
from bridge_py.wire import codec
from bridge_py.wire.conversation import PROTOCOL_VERSION, Conversation, Side
from bridge_py.wire.errors import DecodeError, ProtocolError, RemoteProtocolError
from bridge_py.wire.frames import Frame, Kind

from .bridge.desk import Desk
from .call import Call
from .errors import WorkerError
from .lines import Introduction, Line, Surroundings
from .loop import AsyncioLoop

_OUTCOMES: Final = frozenset({Kind.RESULT, Kind.CHUNK, Kind.END, Kind.ERROR})

logger = logging.getLogger("snakepit.link")

_FOREIGN = (
    grpclib.exceptions.GRPCError,
    grpclib.exceptions.StreamTerminatedError,
    grpclib.exceptions.ProtocolError,
    OSError,
    EOFError,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
    # grpclib deletes its transport when a connection is lost, also while it is about to use it.
    AttributeError,
)


class LinkLost(WorkerError):
    """The connection to a worker has ended."""


class Link(Line):
    """The line to one of our own workers: one stream of frames.

    `secret` is what the worker must know, and `connected` is called when it has shown that it does.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        loop: AsyncioLoop,
        path: str,
        secret: str,
        pid: int,
        connected: Callable[[], None],
    ) -> None:
        sizes = surroundings.config.sizes
        self.conversation = Conversation(Side.HOST, max_frame=sizes.max_frame, max_area=sizes.max_area)
        self.transfers = Transfers(self.conversation, sizes, self._handle)
        self.transfers.peer_pid = pid
        self._desk = Desk(surroundings.bridge, surroundings.worker_id, surroundings.calls, self)
        self._served = self._desk.served
        self._surroundings = surroundings
        self._loop = loop
        self._path = path
        self._secret = secret
        self._connected = connected
        self._on_frame = surroundings.on_frame
        self._to_write: asyncio.Event | None = None

    async def run(self) -> None:
        """See `Line`."""
        hello = {"protocol": PROTOCOL_VERSION, "secret": self._secret, "pid": os.getpid(), "zstd": is_available()}
        self.conversation.hello(codec.encode_plain(hello))
        async with trio.open_nursery() as nursery:
            await nursery.start(self._desk.run)
            try:
                await self._loop.run_coroutine(self._converse())
            except (LinkLost, ProtocolError, DecodeError) as error:
                problem = error
            nursery.cancel_scope.cancel()
        raise problem

    def flush(self) -> None:
        """Have what the conversation holds written, together with all that is said before the writer's turn."""
        if self._to_write is not None:
            self._to_write.set()

    # Calls.

    def open(self, call: Call, timeout_us: int) -> int:
        """See `Line`."""
        call_id = self.conversation.open(
            call.name,
            call.body,
            session_id=call.session_id,
            timeout_us=timeout_us,
            credit=call.credit,
            area=self.transfers.load(call.cargo),
        )
        self.flush()
        return call_id

    def cancel(self, call_id: int) -> list[Frame]:
        """See `Line`."""
        lost = self.transfers.discard(call_id)
        if self.conversation.is_open(call_id):
            self.conversation.cancel(call_id)
        self.flush()
        return lost

    def recall(self, call_id: int) -> None:
        """See `Line`."""
        self.conversation.recall(call_id)
        self.flush()

    def grant(self, call_id: int, chunks: int) -> None:
        """See `Line`."""
        self.conversation.grant(call_id, chunks)
        self.flush()

    def is_open(self, call_id: int) -> bool:
        """See `Line`."""
        return self.conversation.is_open(call_id)

    def ping(self, number: int) -> None:
        """See `Line`."""
        self.conversation.link(Kind.PING, Frame(Kind.PING, number=number))
        self.flush()

    def goodbye(self) -> bool:
        """See `Line`."""
        self.conversation.goodbye()
        self.flush()
        return True

    def cancel_for(self, call: Call) -> None:
        """See `Line`."""
        self._desk.cancel_for(call)

    def is_serving(self, call: Call) -> bool:
        """See `Line`."""
        return call.id in self._served

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """See `Line`."""
        self._desk.when_over(call, then)

    # What comes from the worker.

    def _handle(self, frame: Frame) -> None:
        if frame.kind in _OUTCOMES:
            self._on_frame(frame)
            return
        match frame.kind:
            case Kind.CALL | Kind.STREAM:
                self._desk.take(frame)
            case Kind.CANCEL:
                self._desk.cancel(frame.call_id)
            case Kind.CREDIT:
                self._desk.grant(frame.call_id, frame.number)
            case Kind.RECALL:
                raise RemoteProtocolError("a worker does not call anything back")
            case Kind.HELLO:
                self._hear_hello(frame)
            case _:
                self._on_frame(frame)

    def _hear_hello(self, frame: Frame) -> None:
        hello = codec.decode(frame.body)
        if not isinstance(hello, dict) or not hmac.compare_digest(str(hello.get("secret")), self._secret):
            raise RemoteProtocolError("its hello has the wrong secret")
        if hello.get("protocol") != PROTOCOL_VERSION:
            raise RemoteProtocolError(
                f"it speaks version {hello.get('protocol')} of the link, this host speaks {PROTOCOL_VERSION}"
            )
        self._connected()
        self.transfers.peer_decompresses = bool(hello.get("zstd")) and is_available()
        try:
            tools = msgspec.convert(hello.get("tools", []), list[ToolSpec])
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"its hello describes its tools wrongly: {error}") from None
        self._surroundings.on_ready(Introduction(tools, str(hello.get("python", ""))))

    async def _converse(self) -> None:
        channel = grpclib.client.Channel(path=self._path, codec=RawCodec(), config=link_configuration())
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        with _TranslatedErrors():
            try:
                async with channel.request(LINK_METHOD, cardinality, bytes, bytes) as stream:
                    await stream.send_request()
                    await self._pump(channel, stream)
            finally:
                channel.close()
        raise LinkLost("the worker closed the link")

    async def _pump(self, channel: grpclib.client.Channel, stream: grpclib.client.Stream[bytes, bytes]) -> None:
        self._to_write = asyncio.Event()
        self._to_write.set()
        writer = asyncio.ensure_future(self._write(channel, stream, self._to_write))
        try:
            while (data := await stream.recv_message()) is not None:
                for frame in self.conversation.receive(data):
                    self._route(frame)
                if self.conversation.has_data_to_send:
                    self._to_write.set()
        finally:
            self._to_write = None
            writer.cancel()
            self.transfers.close()
            # Without it, leaving the stream would wait for the worker's last word forever.
            await stream.cancel()  # noqa: ASYNC102 - asyncio's turn: it sends one frame

    def _route(self, frame: Frame) -> None:
        if frame.call_id:
            self.transfers.receive(frame)
        elif frame.loan:
            self.transfers.handle(frame)
        else:
            self._handle(frame)

    async def _write(
        self, channel: grpclib.client.Channel, stream: grpclib.client.Stream[bytes, bytes], ready: asyncio.Event
    ) -> None:
        try:
            while True:
                await ready.wait()
                ready.clear()
                self.transfers.tend()
                while data := self.conversation.data_to_send():
                    await stream.send_message(data)
        except Exception:
            # Nobody awaits a writer; the reader sees that the channel has closed.
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
        if isinstance(error, _FOREIGN) and not isinstance(error, ProtocolError):
            raise LinkLost(f"the link was lost: {error or type(error).__name__}") from error
