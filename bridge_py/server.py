"""The worker's end of the link. Its thread does nothing else, so a busy tool never looks like a dead worker."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import platform
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import grpclib.const
import grpclib.server
import msgspec
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from .adapter import BaseAdapter, Tool, unknown_tool
from .asking import Answer, Asked, Deliver
from .cache import Caches
from .cargo import Load, Packer, Sizes, load_of
from .compression import is_available
from .executor import Call, Executor
from .transfers import Transfers
from .wire import codec
from .wire.conversation import PROTOCOL_VERSION, Conversation, Side
from .wire.errors import CANCELLED, NOT_STARTED, DecodeError, Fault, ProtocolError, WrongCallKind, fault_of
from .wire.frames import Frame, Kind

LINK_METHOD: Final = "/snakepit.bridge.Link/Open"
WINDOW_BYTES: Final = 16 * 1024 * 1024
_INTERRUPT_AGAIN: Final = 0.01  # seconds
_Verb = Literal["result", "error", "chunk", "end", "ask", "grant", "drop"]

logger = logging.getLogger("snakepit.link")


class RawCodec(CodecBase):
    """Hands `Batch` messages to grpclib as bytes; `Conversation` reads and writes them."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The message, which is bytes already."""
        data: bytes = message
        return data

    def decode(self, data: bytes, message_type: Any) -> bytes:
        """The bytes, as they came."""
        return data


def link_configuration() -> Configuration:
    """The HTTP/2 settings of both ends: windows large enough that flow control never adds a round trip."""
    return Configuration(http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES)


class LinkServer:
    """Serves one host on one listening socket, and posts what the executor says back to it.

    `end` is called, from the link's thread, when the host says goodbye.
    """

    def __init__(
        self, adapter: BaseAdapter, listener: socket.socket, secret: str, sizes: Sizes, end: Callable[[], None]
    ) -> None:
        self._tools: dict[str, Tool] = adapter.tools()
        self.caches = Caches()
        self.cache_ttl = adapter.cache_ttl
        self.strict = adapter.strict
        self._sizes = sizes
        self._asked: dict[int, tuple[str, Deliver]] = {}  # by call: its session, and who waits
        self._listener = listener
        self._secret = secret
        self._conversation = Conversation(Side.WORKER, max_frame=sizes.max_frame, max_area=sizes.max_area)
        self._transfers = Transfers(self._conversation, sizes, self._deliver)
        #: Encodes what tools return.
        self.pack = Packer(sizes, self._transfers)
        self._end = end
        self._ending = False
        self._executor: Executor | None = None
        self._outbox: deque[tuple[_Verb, int, Any]] = deque()
        self._open_already = False
        self._waking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._to_write: asyncio.Event | None = None

    def start(self, executor: Executor) -> None:
        """Serve on a thread of its own until the process ends."""
        self._executor = executor
        threading.Thread(target=self._run, name="link", daemon=True).start()

    def _run(self) -> None:
        # Whatever happens to the link, a worker without its host has no reason to live.
        try:
            with asyncio.Runner(loop_factory=_new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException:  # noqa: ASYNC103 - the process ends below
            logger.exception("the link failed")
        finally:
            if not self._ending:
                die()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._to_write = asyncio.Event()
        self._closed = asyncio.Event()
        # A reply that cannot be posted would leave its caller waiting for ever.
        self._loop.set_exception_handler(self._fail)
        server = grpclib.server.Server([self], codec=RawCodec(), config=link_configuration())
        await server.start(sock=self._listener)
        await self._closed.wait()

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        """The service, in grpclib's terms."""
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {LINK_METHOD: grpclib.const.Handler(self._open, cardinality, bytes, bytes)}

    async def _open(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        if self._open_already:
            raise GRPCError(Status.FAILED_PRECONDITION, "a worker has one host and one link")
        self._open_already = True
        self._listener.close()
        self._conversation.hello(codec.encode_plain(self._introduction()))
        assert self._to_write is not None
        self._to_write.set()
        writer = asyncio.create_task(self._write(stream))
        writer.add_done_callback(lambda _: self._closed.set())
        try:
            while (data := await stream.recv_message()) is not None:
                for frame in self._conversation.receive(data):
                    self._handle(frame)
                if self._conversation.has_data_to_send:
                    self._to_write.set()
        except (ProtocolError, DecodeError) as error:
            logger.error("the host broke the protocol: %s", error)
        finally:
            writer.cancel()

    def _fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        logger.error("the link failed: %s", context["message"], exc_info=context.get("exception"))
        self._closed.set()

    async def _write(self, stream: grpclib.server.Stream[bytes, bytes]) -> None:
        assert self._to_write is not None
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            self._transfers.tend()
            while data := self._conversation.data_to_send():
                await stream.send_message(data)

    def _introduction(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL_VERSION,
            "secret": self._secret,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "zstd": is_available(),
            "tools": [tool.spec for tool in self._tools.values()],
        }

    # What the host says.

    def _handle(self, frame: Frame) -> None:
        executor = self._executor
        assert executor is not None
        match frame.kind:
            case Kind.CALL | Kind.STREAM | Kind.CREDIT | Kind.RESULT | Kind.ERROR | Kind.CHUNK | Kind.END:
                self._transfers.receive(frame)
            case Kind.CANCEL | Kind.RECALL if self._transfers.waits(frame.call_id):
                self._withdraw(frame)
            case Kind.CANCEL:
                self._cancel(frame.call_id, executor)
            case Kind.RECALL:
                executor.recall(frame.call_id)
            case Kind.FETCH | Kind.BUFFER | Kind.TAKEN | Kind.RETURNED:
                self._transfers.handle(frame)
            case Kind.INVALIDATE:
                self.caches.invalidate(frame.session_id, msgspec.msgpack.decode(frame.body, type=list[str]))
            case Kind.PING:
                self._conversation.link(Kind.PONG, Frame(0, number=frame.number))
            case Kind.HELLO:
                self._check_hello(frame)
            case Kind.GOODBYE:
                self._ending = True
                self._end()
            case _:
                raise ProtocolError(f"the host sent a frame of kind {frame.kind}")

    def _check_hello(self, frame: Frame) -> None:
        hello = codec.decode(frame.body)
        if not isinstance(hello, dict) or not hmac.compare_digest(str(hello.get("secret")), self._secret):
            raise ProtocolError("its hello has the wrong secret")
        if hello.get("protocol") != PROTOCOL_VERSION:
            raise ProtocolError(f"it speaks version {hello.get('protocol')} of the link, we speak {PROTOCOL_VERSION}")
        self._transfers.peer_pid = int(hello.get("pid", 0))
        self._transfers.peer_decompresses = bool(hello.get("zstd")) and is_available()

    def _withdraw(self, frame: Frame) -> None:
        self._transfers.discard(frame.call_id)
        code = CANCELLED if frame.kind == Kind.CANCEL else NOT_STARTED
        self._refuse(frame.call_id, Fault(code, "the call had not started"))

    def _deliver(self, frame: Frame) -> None:
        assert self._executor is not None
        if frame.kind == Kind.CREDIT:
            self._executor.grant(frame.call_id, frame.number)
        elif frame.kind == Kind.CHUNK:
            session_id, deliver = self._asked[frame.call_id]
            deliver(Answer(frame, 0))
        elif frame.kind in (Kind.RESULT, Kind.ERROR, Kind.END):
            session_id, deliver = self._asked.pop(frame.call_id)
            deliver(Answer(frame, self.caches.stamp(session_id)))
        else:
            self._opened(frame, self._executor)

    def _opened(self, frame: Frame, executor: Executor) -> None:
        tool = self._tools.get(frame.name)
        if tool is None:
            self._refuse(frame.call_id, fault_of(unknown_tool(frame.name, self._tools)))
        elif tool.streaming != (frame.kind == Kind.STREAM):
            verb, kind = ("stream", "a stream") if tool.streaming else ("execute", "no stream")
            error = WrongCallKind(f"tool {tool.name!r} is {kind}: call it with pool.{verb}")
            self._refuse(frame.call_id, fault_of(error))
        else:
            call = Call(frame.call_id, tool, frame.body, frame.attached, frame.session_id, frame.number, self)
            executor.submit(call)

    def _cancel(self, call_id: int, executor: Executor) -> None:
        if not executor.cancel(call_id):
            assert self._loop is not None
            self._loop.call_later(_INTERRUPT_AGAIN, self._cancel, call_id, executor)

    def _refuse(self, call_id: int, fault: Fault) -> None:
        self._conversation.error(call_id, codec.encode_plain(fault))

    # What the executor says, from its own threads.

    def result(self, call_id: int, load: Load) -> None:
        """See `Replies`."""
        self._post(("result", call_id, load))

    def error(self, call_id: int, fault: Fault) -> None:
        """See `Replies`."""
        self._post(("error", call_id, fault))

    def chunk(self, call_id: int, load: Load) -> None:
        """See `Replies`."""
        self._post(("chunk", call_id, load))

    def end(self, call_id: int) -> None:
        """See `Replies`."""
        self._post(("end", call_id, None))

    def ask(
        self,
        call_id: int,
        session_id: str,
        verb: str,
        arguments: tuple[Any, ...],
        deliver: Deliver,
        credit: int | None = None,
    ) -> Asked:
        """See `Host`."""
        load = load_of([call_id, *arguments], verb, self._sizes, len(verb))
        asked = Asked()
        self._post(("ask", call_id, (asked, session_id, verb, load, deliver, credit)))
        return asked

    def grant(self, asked: Asked, chunks: int) -> None:
        """See `Host`."""
        self._post(("grant", 0, (asked, chunks)))

    def drop(self, asked: Asked) -> None:
        """See `Host`."""
        self._post(("drop", 0, asked))

    def _post(self, reply: tuple[_Verb, int, Any]) -> None:
        self._outbox.append(reply)
        # The flag falls before the outbox is emptied, so a reply that sees it up is still taken.
        if not self._waking:
            self._waking = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._take_outbox)

    def _take_outbox(self) -> None:
        self._waking = False
        while self._outbox:
            self._reply(*self._outbox.popleft())
        assert self._to_write is not None
        self._to_write.set()

    def _reply(self, kind: str, call_id: int, content: Any) -> None:
        conversation = self._conversation
        if kind == "end":
            conversation.end(call_id)
        elif kind == "error":
            conversation.error(call_id, codec.encode_plain(content))
        elif kind == "ask":
            self._ask(*content)
        elif kind == "grant":
            self._grant(*content)
        elif kind == "drop":
            if conversation.is_open(content.id):
                conversation.cancel(content.id)
        else:
            body, cargo = content
            send = conversation.result if kind == "result" else conversation.chunk
            send(call_id, body, self._transfers.load(cargo))
            if cargo is not None:
                cargo.release()

    def _ask(self, asked: Asked, session_id: str, verb: str, load: Load, deliver: Deliver, credit: int | None) -> None:
        body, cargo = load
        self.caches.trim()
        asked.id = self._conversation.open(verb, body, credit=credit, area=self._transfers.load(cargo))
        self._asked[asked.id] = session_id, deliver

    def _grant(self, asked: Asked, chunks: int) -> None:
        if self._conversation.is_open(asked.id):
            self._conversation.grant(asked.id, chunks)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    # uvloop saves about a third of a call's latency; a worker's environment may lack it.
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def die() -> None:
    """End this process and what it has started, at once."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
