"""The host's end of a link: one grpclib channel, one stream. The only module of the host that touches asyncio.

Foreign exceptions end here: whoever runs a link sees `LinkLost` or `ProtocolError`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpclib.client
import grpclib.const
import grpclib.exceptions
import grpclib.utils
import trio
import trio_asyncio

from bridge_py.cargo import Sizes
from bridge_py.server import LINK_METHOD, RawCodec, link_configuration
from bridge_py.transfers import Transfers
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.errors import ProtocolError
from bridge_py.wire.frames import Frame

from .errors import WorkerError

logger = logging.getLogger("snakepit.link")

# grpclib keeps `asyncio.current_task` as it was at its import, and from Python 3.12 on the original does not
# see trio-asyncio's loops. Which of the two an application imports first is not ours to say.
grpclib.utils._current_task = asyncio.current_task

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


class AsyncioLoop:
    """The event loop that a pool's links share, on top of trio.

    It runs in a task of its own, so that the application's context never sees it, and an
    application may have a trio-asyncio loop of its own.
    """

    def __init__(self) -> None:
        self._loop: Any = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio_asyncio.open_loop() as self._loop:
            # An error in a callback of the link must not take the loop, and with it the pool, down.
            self._loop.set_exception_handler(_log_error)
            task_status.started()
            await trio.sleep_forever()

    async def run_coroutine(self, coroutine: Any) -> None:
        """Run an asyncio coroutine from trio; cancelling cancels it."""
        await self._loop.run_aio_coroutine(coroutine)


class Link:
    """One worker's link.

    `on_frame` is called for each frame that arrives, already checked and with its area, in the thread and turn of
    the link's loop: it must not block and should not raise.
    """

    def __init__(self, loop: AsyncioLoop, path: str, sizes: Sizes, on_frame: Callable[[Frame], None]) -> None:
        self.conversation = Conversation(Side.HOST, max_frame=sizes.max_frame, max_area=sizes.max_area)
        self.transfers = Transfers(self.conversation, sizes, on_frame)
        self._loop = loop
        self._path = path
        self._on_frame = on_frame
        self._to_write: asyncio.Event | None = None

    async def run(self) -> None:
        """Connect and converse until the link ends, which is always by an exception.

        Raises `LinkLost`, or `ProtocolError` if the worker broke the rules.
        """
        await self._loop.run_coroutine(self._converse())

    def flush(self) -> None:
        """Have what the conversation holds written, together with all that is said before the writer's turn."""
        if self._to_write is not None:
            self._to_write.set()

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
            self._on_frame(frame)

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


def _log_error(_loop: object, context: dict[str, Any]) -> None:
    logger.warning("%s", context.get("message", "error in the link's loop"), exc_info=context.get("exception"))
