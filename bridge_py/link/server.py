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
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from .remote import RemoteServer, RemoteSettings
    from .silence import SilenceWatch

_STOPS: Final = 2.0  # seconds that the thread gets to end

logger = logging.getLogger("snakepit.link")


class LinkServer:
    """Serves one host on one listening socket. Calls `on_goodbye`, on the link's thread, when the host says goodbye.

    `lane` has the two pipes of a lane: the one to read from, and the one to write to. With `remote`, the socket is one
    of TCP, and the host is on another machine.
    """

    def __init__(
        self,
        adapter: BaseAdapter,
        listener: socket.socket,
        secret: str,
        sizes: Sizes,
        on_goodbye: Callable[[], None],
        lane: tuple[int, int] | None = None,
        remote: RemoteSettings | None = None,
    ) -> None:
        self.endpoint = LinkEndpoint(adapter, secret, sizes, self, on_goodbye)
        if lane is not None:
            self.endpoint.make_lane = self._make_lane
        self._pipes = lane
        self._secret = secret
        self._max_frame = sizes.max_frame
        self._remote = remote
        self._server: BoundedServer | None = None
        self._remote_server: RemoteServer | None = None
        self._watch: SilenceWatch | None = None
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
        self.endpoint.is_ending = True
        if self._lane is not None:
            self._lane.close()
        if self.endpoint.logs is not None:
            self.endpoint.logs.end()
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
            if not self.endpoint.is_ending:
                die()

    async def _serve(self) -> None:
        self._to_write = asyncio.Event()
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # If a reply could not be posted and the worker went on, its caller would wait forever.
        self._loop.set_exception_handler(self._fail)
        if self._remote is None:
            server = self._server = BoundedServer([self], BatchCodec(), link_configuration())
            await server.start(sock=self._listener)
        else:
            server = self._serve_remote(self._remote)
        await self._closed.wait()
        await _end_tasks()  # first: grpclib logs the loss of a connection that a task still serves
        server.abort()  # a loop that is closed before its connections warns of them

    def _serve_remote(self, settings: RemoteSettings) -> RemoteServer:
        from .remote import RemoteServer  # only here: workers of this machine start sooner

        server = self._server = self._remote_server = RemoteServer(self, settings)
        server.serve(self._listener)
        self.later(settings.first_host, self._end_without_host, settings.first_host)
        return server

    def _end_without_host(self, seconds: float) -> None:
        if not self._open_already:
            logger.error("no host has come within %g s", seconds)
            self._close()

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        """Return the handlers of the service, as grpclib wants them."""
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {LINK_METHOD: grpclib.const.Handler(self._open, cardinality, bytes, bytes)}

    async def _open(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        bound_batches(stream._stream, self.endpoint.max_batch)
        first = b"" if self._remote_server is None else await self._prove(self._remote_server, stream)
        if self._open_already:
            raise GRPCError(Status.FAILED_PRECONDITION, "a worker has one host and one link")
        self._open_already = True
        self._take_no_more(stream)
        assert self._executor is not None
        self.endpoint.begin(self._executor)
        # Reading the host's hello opens the lane, and our own hello does not belong there: so it is sent first.
        await stream.send_message(self.endpoint.data_to_send())
        writer = asyncio.create_task(self._write(stream))
        writer.add_done_callback(lambda _: self._close())
        try:
            if first:
                self.endpoint.receive(first)
            while (data := await stream.recv_message()) is not None:
                self.endpoint.receive(data)
        except (ProtocolError, DecodeError) as error:
            logger.error("the host broke the protocol: %s", error)
        finally:
            writer.cancel()

    async def _prove(self, server: RemoteServer, stream: grpclib.server.Stream[bytes, bytes]) -> bytes:
        """Return the first batch of a peer that knows the secret. Nobody else gets a word of ours."""
        from .remote import HELLO, check_first_batch

        try:
            async with asyncio.timeout(HELLO):
                data = await stream.recv_message()
            check_first_batch(data or b"", self._secret, self._max_frame)
        except (ProtocolError, DecodeError, TimeoutError) as error:
            server.warn(f"a link is refused: {str(error) or 'there is no hello'}")
            raise GRPCError(Status.UNAUTHENTICATED, "this is not the worker's host") from None
        assert data is not None
        return data

    def _take_no_more(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        assert self._server is not None
        self._server.take_no_more()
        if self._remote_server is not None:
            self._watch_host(stream)
        self._listener.close()

    def _watch_host(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        from .silence import SilenceWatch

        assert self._remote is not None
        connected = stream._stream._transport.get_extra_info("socket")
        self._watch = SilenceWatch(connected, self._remote.silence, self._lose_host, self._remote.frozen)

    def _lose_host(self, why: str) -> None:
        # What a caller has waited for is lost, and another worker may have it: so this one does no more.
        logger.error("the link to the host is dead: %s", why)
        die()

    def _make_lane(self) -> Lane:
        assert self._pipes is not None
        self._lane = Lane(self.endpoint, *self._pipes, die, self.endpoint.max_batch)
        return self._lane

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
            while data := self.endpoint.data_to_send():
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
        self.endpoint.take_outbox()
        self.flush()

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the link's thread after some time. Only that thread may call this."""
        assert self._loop is not None
        self._loop.call_later(seconds, function, *args)

    def flush(self) -> None:
        """Write what the endpoint has to send. Only the link's thread may call this."""
        assert self._to_write is not None
        self._to_write.set()


async def _end_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


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
