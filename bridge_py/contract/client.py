"""A client of the wire contract for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, TypeVar, cast

from grpclib.client import Stream
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from grpclib.metadata import USER_AGENT, Deadline
from h2.exceptions import StreamClosedError

from bridge_py.wire.any_values import LargeValues
from bridge_py.wire.errors import RemoteError
from bridge_py.wire.messages.snakepit import bridge as messages

from . import values
from .at_once import body_of
from .client_base import NOTHING, ClientBase
from .connections import GuardedChannel
from .credentials import Credentials, reachable
from .quick_requests import Opened
from .requests import Attempts, NotProcessed
from .statuses import translated
from .tool_messages import read_result, write_request

_SERVICE: Final = "/snakepit.bridge.BridgeService/"
_EXECUTE: Final = _SERVICE + "ExecuteTool"
_RETRY: Final = 0.05  # seconds between two tries to connect
_FINAL: Final = (PermissionError, ssl.SSLError)  # trying again would lead to the same
_READS_RAW: Final = {values.LARGE_VALUES: values.RAW}

R = TypeVar("R")


class AsyncioClient(ClientBase):
    """A client of the wire contract, in asyncio. It connects at the first call, and again after a connection is lost.

    The address is "host:port" or "unix:/path". `connect_timeout` is how long, in seconds, it tries to reach a peer that
    does not listen yet. `allow_pickle` lets historic peers send arrays as pickles. `large_values` says how large arrays
    go to a peer that has not told that it reads them in raw bytes. With `check_server`, a port of this machine counts
    as not there while another user, who is not root, serves it. `token` is sent with each request, and `tls` is the
    context for TLS with the peer.

    Raises `UsageError` for an invalid address, token or context, and without both of the latter for an address that
    other machines reach.
    """

    def __init__(
        self,
        address: str,
        *,
        connect_timeout: float = 5.0,
        allow_pickle: bool = False,
        large_values: LargeValues = "json",
        check_server: bool = False,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.allow_pickle = allow_pickle
        self._large_values: LargeValues = large_values
        self._peer_reads_raw: bool | None = None  # None until it has answered
        credentials = Credentials(token, tls)
        self._metadata = {**_READS_RAW, **credentials.metadata}
        self._channel = GuardedChannel(reachable(address, credentials), credentials, check_server=check_server)
        self._headers = (*_request_headers(self._channel), *self._metadata.items())
        self._connect_timeout = connect_timeout

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def begin_tool(
        self,
        name: str,
        args: Mapping[str, Any],
        then: Callable[[bytes], None],
        otherwise: Callable[[Callable[[], Coroutine[Any, Any, Any]]], None],
        *,
        session_id: str = "",
        metadata: Mapping[str, str] = NOTHING,
    ) -> bool:
        """Begin what `execute_tool` does, if that needs no task. Returns whether it has begun.

        Then either `then` is called with the answer, for `result_of`, or `otherwise` with a coroutine function that
        goes on and returns the result. Call this where the loop of the client runs.
        """
        quick = self._channel.quick
        request = None if quick is None else write_request(session_id, name, args, metadata)
        if quick is None or request is None:
            return False

        def learn(message: bytes, headers: Any) -> None:
            self._learn(dict(headers))
            then(message)

        again = partial(self.execute_tool, name, args, session_id=session_id, metadata=metadata)

        def go_on(opened: Opened) -> None:
            otherwise(partial(self._go_on, opened, again))

        return quick.try_request(self._headers, body_of(request), learn, go_on)

    async def _go_on(self, opened: Opened, again: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        attempts = Attempts()
        with translated():
            try:
                found = await self._finish(opened)
            except NotProcessed as error:
                await attempts.pause(error)
                found = None
        return await again() if found is None else self.read_answer(found, found.binary_result)

    async def _finish(self, opened: Opened) -> messages.ExecuteToolResponse:
        async with self._channel.request(
            _EXECUTE, Cardinality.UNARY_UNARY, messages.ExecuteToolRequest, messages.ExecuteToolResponse
        ) as stream:
            inner = cast("Any", stream)
            inner._stream, inner._wrapper, inner._release_stream = opened
            inner._send_request_done = inner._send_message_done = inner._end_done = True
            return await self._answer(stream)

    def result_of(self, message: bytes) -> Any:
        """Read the answer to `begin_tool`. Raises what `execute_tool` raises."""
        plain = read_result(message)
        if plain is None:
            found = messages.ExecuteToolResponse.FromString(message)
            return self.read_answer(found, found.binary_result)
        return values.from_plain_any(*plain)

    async def _call(self, rpc: str, request: Any, response: type[R], timeout: float | None = None) -> R:
        attempts = Attempts(timeout)
        with translated():
            while True:
                try:
                    return await self._try_call(rpc, request, response, attempts.deadline)
                except NotProcessed as error:
                    await attempts.pause(error)

    async def _try_call(self, rpc: str, request: Any, response: type[R], deadline: Deadline | None) -> R:
        await self._connect(deadline)
        async with self._channel.request(
            _SERVICE + rpc,
            Cardinality.UNARY_UNARY,
            type(request),
            response,
            deadline=deadline,
            metadata=self._metadata,
        ) as stream:
            await stream.send_message(request, end=True)
            return await self._answer(stream)

    async def _answer(self, stream: Stream[Any, R]) -> R:
        found = await stream.recv_message()
        self._learn(stream.initial_metadata)
        if found is None:
            raise StreamTerminatedError("the peer gave no answer")
        return found

    async def _stream(self, rpc: str, requests: Any, response: type[R]) -> AsyncGenerator[R, None]:
        kind = Cardinality.STREAM_STREAM if rpc == "StreamTelemetry" else Cardinality.UNARY_STREAM
        request = messages.TelemetryControl if rpc == "StreamTelemetry" else type(requests[0])
        attempts = Attempts()
        with translated():
            while True:
                await self._connect(None)
                try:
                    async with self._channel.request(
                        _SERVICE + rpc, kind, request, response, metadata=self._metadata
                    ) as stream:
                        await _send(stream, requests, end=kind is Cardinality.UNARY_STREAM)
                        try:
                            while (found := await stream.recv_message()) is not None:
                                yield found  # noqa: ASYNC119 - a caller that leaves early closes it
                        except GeneratorExit:
                            # Without this, leaving would wait for the stream's end. It may have ended meanwhile.
                            with contextlib.suppress(StreamClosedError):
                                await stream.cancel()  # noqa: ASYNC120 - it sends one frame
                            raise
                        if kind is Cardinality.UNARY_STREAM:
                            # grpclib would not look at the status when the connection has ended meanwhile.
                            await stream.recv_trailing_metadata()
                        return
                except NotProcessed as error:  # so nothing has been yielded
                    await attempts.pause(error)

    async def _form(self) -> LargeValues:
        if self._peer_reads_raw is None:
            try:
                await self.ping()
            except RemoteError as error:
                if error.status == "UNAVAILABLE":
                    raise
        return values.RAW if self._peer_reads_raw else self._large_values

    def _learn(self, metadata: Any) -> None:
        # Another peer may have the address by now: so each answer counts.
        self._peer_reads_raw = metadata is not None and metadata.get(values.LARGE_VALUES) == values.RAW

    async def _connect(self, deadline: Deadline | None) -> None:
        if self._channel.is_connected:
            return
        if deadline is None:
            await self._connect_within(self._connect_timeout)
            return
        left = deadline.time_remaining()
        async with asyncio.timeout(left):
            await self._connect_within(min(left, self._connect_timeout))

    async def _connect_within(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                await self._channel.__connect__()
            except OSError as error:
                if time.monotonic() + _RETRY > until or isinstance(error, _FINAL):
                    raise
                await asyncio.sleep(_RETRY)
            else:
                return


def _request_headers(channel: GuardedChannel) -> list[tuple[str, str]]:
    """The headers of a call of a tool, as grpclib writes them."""
    return [
        (":method", "POST"),
        (":scheme", channel._scheme),
        (":path", _EXECUTE),
        (":authority", channel._authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", USER_AGENT),
    ]


async def _send(stream: Any, requests: Any, *, end: bool) -> None:
    await stream.send_request()
    for each in requests:
        await stream.send_message(each, end=end)
