"""Runs the worker's end of the link on a thread of its own, so that a busy tool never looks like a dead worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

import grpclib.const
import grpclib.server
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from bridge_py.buffers.buffer_sets import Sizes
from bridge_py.execution.executor import Executor
from bridge_py.http2 import BoundedServer
from bridge_py.tools.adapter import BaseAdapter
from bridge_py.wire.errors import DecodeError, ProtocolError

from .channel import LINK_METHOD, BatchCodec, bound_batches, link_configuration
from .endpoint import LinkEndpoint
from .lane import Lane

_STOPS: Final = 2.0  # seconds that the thread gets to end

logger = logging.getLogger("snakepit.link")


class LinkServer:
    """Serves one host on one listening socket. Calls `end`, on the link's thread, when the host says goodbye.

    `lane` has the two pipes of a lane: the one to read from, and the one to write to.
    """

    def __init__(
        self,
        adapter: BaseAdapter,
        listener: socket.socket,
        secret: str,
        sizes: Sizes,
        end: Callable[[], None],
        lane: tuple[int, int] | None = None,
    ) -> None:
        self.end = LinkEndpoint(adapter, secret, sizes, self, end)
        if lane is not None:
            self.end.open_lane = self._open_lane
        self._pipes = lane
        self._lane: Lane | None = None
        self._listener = listener
        self._executor: Executor | None = None
        self._open_already = self._waking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._to_write: asyncio.Event | None = None
        self._closed: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def start(self, executor: Executor) -> None:
        """Serve on a thread of its own until `stop`."""
        self._executor = executor
        self._thread.start()

    def stop(self) -> None:
        """End the loop and its thread. If a loop in C ran on while the interpreter is finalized, it would crash."""
        self.end.is_ending = True
        if self._lane is not None:
            self._lane.close()
        if self._loop is not None and self._closed is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended on its own
                self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(_STOPS)

    def _run(self) -> None:
        # However the link ends, a worker without its host must end too.
        try:
            with asyncio.Runner(loop_factory=_new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException:  # noqa: ASYNC103 - the process ends below
            logger.exception("the link failed")
        finally:
            if not self.end.is_ending:
                die()

    async def _serve(self) -> None:
        self._to_write = asyncio.Event()
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # If a reply could not be posted and the worker went on, its caller would wait forever.
        self._loop.set_exception_handler(self._fail)
        server = BoundedServer(self, BatchCodec(), link_configuration())
        await server.start(sock=self._listener)
        await self._closed.wait()

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        """Return the handlers of the service, as grpclib wants them."""
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {LINK_METHOD: grpclib.const.Handler(self._open, cardinality, bytes, bytes)}

    async def _open(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        if self._open_already:
            raise GRPCError(Status.FAILED_PRECONDITION, "a worker has one host and one link")
        self._open_already = True
        self._listener.close()
        assert self._executor is not None
        self.end.begin(self._executor)
        # Reading the host's hello opens the lane, and our own hello does not belong there: so it is sent first.
        await stream.send_message(self.end.data_to_send())
        writer = asyncio.create_task(self._write(stream))
        writer.add_done_callback(lambda _: self._close())
        bound_batches(stream._stream, self.end.max_batch)
        try:
            while (data := await stream.recv_message()) is not None:
                self.end.receive(data)
        except (ProtocolError, DecodeError) as error:
            logger.error("the host broke the protocol: %s", error)
        finally:
            writer.cancel()

    def _open_lane(self) -> Lane:
        assert self._pipes is not None
        assert self._executor is not None
        lane = self._lane = Lane(self.end, *self._pipes, die, self.end.max_batch)
        self._executor.use_lane(lane)
        return lane

    def _fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        logger.error("the link failed: %s", context["message"], exc_info=context.get("exception"))
        self._close()

    def _close(self) -> None:
        assert self._closed is not None
        self._closed.set()

    async def _write(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        assert self._to_write is not None
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            while data := self.end.data_to_send():
                await stream.send_message(data)

    clock = staticmethod(time.monotonic)

    def make_queue(self) -> SimpleQueue[Any]:
        """Make the queue at which a thread waits: any thread calls `put`, and the waiting thread calls `get`."""
        return SimpleQueue()

    def post(self, verb: str) -> None:  # noqa: ARG002 - all verbs are alike here
        """Send what is in the endpoint's outbox, on the link's thread. Any thread may call this."""
        assert self._loop is not None
        # `_take_outbox` clears the flag before it empties the outbox, so it takes a reply that finds the flag set.
        if not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._take_outbox)

    def _take_outbox(self) -> None:
        self._waking = False
        self.end.take_outbox()
        self.flush()

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the link's thread after some time. Only that thread may call this."""
        assert self._loop is not None
        self._loop.call_later(seconds, function, *args)

    def flush(self) -> None:
        """Write what the endpoint has to send. Only the link's thread may call this."""
        assert self._to_write is not None
        self._to_write.set()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    # uvloop saves about a third of a call's latency; a worker's environment may lack it.
    try:
        import uvloop
    except ImportError:
        # The class itself, not `asyncio.new_event_loop`: an adapter's module may have set a policy.
        return asyncio.SelectorEventLoop()
    return uvloop.new_event_loop()


def die() -> None:
    """Kill this process at once; if it leads its process group, with all processes of the group."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
