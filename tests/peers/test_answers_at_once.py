"""Requests that a server answers where it reads them, and those that it leaves to grpclib: the answers are the same."""

from __future__ import annotations

import asyncio
import functools
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.settings import SettingCodes

from bridge_py.contract.connections import GuardedServer
from bridge_py.contract.credentials import Credentials
from bridge_py.contract.listening import listen
from bridge_py.contract.serving import ContractService
from bridge_py.contract.tool_messages import read_session_id
from bridge_py.wire.messages.snakepit import bridge as messages

RPC: Final = "/snakepit.bridge.BridgeService/GetExposedElixirTools"
HEADERS: Final = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", RPC),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
TOOL: Final = messages.ToolSpec(name="a tool")


class Service(ContractService):
    """Has a tool, but not for the session "none". It counts what it is asked in grpclib's way."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0

    async def get_exposed_elixir_tools(
        self, message: messages.GetExposedElixirToolsRequest
    ) -> messages.GetExposedElixirToolsResponse:
        self.asked += 1
        return self._answer(message.session_id)

    def _answer(self, session_id: str) -> messages.GetExposedElixirToolsResponse:
        if session_id == "none":
            raise GRPCError(Status.NOT_FOUND, "session none not found")
        if session_id == "large":
            return messages.GetExposedElixirToolsResponse(tools=[TOOL] * 10_000)
        return messages.GetExposedElixirToolsResponse(tools=[TOOL])

    def answer_at_once(self, data: bytes) -> bytes | None:
        session_id = read_session_id(data)
        if session_id is None or session_id == "later":
            return None
        answer = bytes(self._answer(session_id))
        self.at_once += 1
        return answer


class Client:
    """A client made by hand of h2, which sends frames as it is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="ascii"))
        self.data: dict[int, bytes] = {}
        self.status: dict[int, str] = {}
        self.statuses: list[str] = []

    async def connect(self, window: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.h2.initiate_connection()
        if window != 65_535:
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def begin(self, *more: tuple[str, str], end: bool = False) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*HEADERS, *more], end_stream=end)
        return stream

    def ask(self, session_id: str, *more: tuple[str, str]) -> int:
        stream = self.begin(*more)
        self.h2.send_data(stream, body(session_id), end_stream=True)
        self.flush()
        return stream

    async def outcome(self, stream: int) -> tuple[str, int]:
        """The status of a request and how many tools came."""
        while stream not in self.status:
            for event in self.h2.receive_data(await self.reader.read(65536)):
                self._take(event)
            self.flush()
        found = messages.GetExposedElixirToolsResponse.parse(self.data.get(stream, b"")[5:])
        return self.status[stream], len(found.tools)

    def _take(self, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (h2.events.TrailersReceived, h2.events.ResponseReceived)):
            headers: dict[Any, Any] = dict(event.headers)
            if "grpc-status" in headers:
                self.status[event.stream_id] = headers["grpc-status"]


def body(session_id: str) -> bytes:
    message = bytes(messages.GetExposedElixirToolsRequest(session_id=session_id))
    return struct.pack(">?I", False, len(message)) + message


@asynccontextmanager
async def connected(
    window: int = 65_535, credentials: Credentials | None = None
) -> AsyncIterator[tuple[Service, Client]]:
    service = Service()
    options = {} if credentials is None else {"credentials": credentials}
    server = GuardedServer([service], "user", answers={RPC: service.answer_at_once}, **options)  # type: ignore[arg-type]
    with listen("127.0.0.1", 0) as listener:
        async with asyncio.timeout(30):
            await server.serve(listener)
            client = Client(listener.getsockname()[1])
            await client.connect(window)
            try:
                yield service, client
            finally:
                client.writer.close()
                server.close()
                server.abort()
                while server.connections:
                    await asyncio.sleep(0)


def in_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        # A loop of its own kind: trio-asyncio has set a policy if another test has imported it.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(test(**arguments))

    return run


@in_asyncio
async def test_requests_in_one_piece_are_answered_at_once() -> None:
    async with connected() as (service, client):
        for _ in range(3):
            assert await client.outcome(client.ask("s")) == ("0", 1)
        streams = [client.ask("s") for _ in range(50)]
        assert [await client.outcome(stream) for stream in streams] == [("0", 1)] * 50
        assert (service.at_once, service.asked) == (53, 0)


@pytest.mark.parametrize(
    ("session_id", "expected"), [("later", ("0", 1)), ("none", ("5", 0)), ("large", ("0", 10_000))]
)
@in_asyncio
async def test_other_answers_come_in_grpclib_s_way(session_id: str, expected: tuple[str, int]) -> None:
    async with connected() as (service, client):
        for _ in range(3):
            assert await client.outcome(client.ask(session_id)) == expected
            assert await client.outcome(client.ask("s")) == ("0", 1)
        assert service.asked == 3


@pytest.mark.parametrize("header", [("grpc-timeout", "10S"), ("content-length", "8")], ids=["deadline", "length"])
@in_asyncio
async def test_headers_with_a_meaning_are_heeded(header: tuple[str, str]) -> None:
    async with connected() as (_, client):
        assert await client.outcome(client.ask("s")) == ("0", 1)
        assert await client.outcome(client.ask("s", header)) == ("0", 1)
        assert await client.outcome(client.ask("s", header)) == ("0", 1)


@pytest.mark.parametrize("timeout", ["0S", "0n", "1n", "900u"])
@in_asyncio
async def test_a_request_whose_time_is_over_gets_no_answer(timeout: str) -> None:
    async with connected() as (service, client):
        assert await client.outcome(client.ask("s")) == ("0", 1)
        assert await client.outcome(client.ask("s", ("grpc-timeout", timeout))) == ("4", 0)  # DEADLINE_EXCEEDED
        assert service.asked == 0
        assert await client.outcome(client.ask("s", ("grpc-timeout", "30S"))) == ("0", 1)


@in_asyncio
async def test_a_request_in_pieces_is_answered_too() -> None:
    async with connected() as (service, client):
        assert await client.outcome(client.ask("s")) == ("0", 1)
        stream = client.begin()
        client.flush()
        for each in body("s"):
            await asyncio.sleep(0)
            client.h2.send_data(stream, bytes([each]), pad_length=2)
            client.flush()
        client.h2.end_stream(stream)
        client.flush()
        assert await client.outcome(stream) == ("0", 1)
        assert (service.at_once, service.asked) == (1, 1)


@in_asyncio
async def test_a_client_with_a_small_window_gets_its_answer_in_pieces() -> None:
    async with connected(window=3) as (service, client):
        assert await client.outcome(client.ask("s")) == ("0", 1)
        assert await client.outcome(client.ask("s")) == ("0", 1)
        assert service.asked == 2


@in_asyncio
async def test_a_window_that_has_grown_is_used() -> None:
    async with connected(window=3) as (service, client):
        assert await client.outcome(client.ask("s")) == ("0", 1)
        stream = client.begin()
        client.h2.increment_flow_control_window(1000, stream)
        client.h2.send_data(stream, body("s"), end_stream=True)
        client.flush()
        assert await client.outcome(stream) == ("0", 1)
        assert service.asked == 1


@in_asyncio
async def test_requests_that_are_reset_or_have_no_message_harm_nobody() -> None:
    async with connected() as (_, client):
        assert await client.outcome(client.ask("s")) == ("0", 1)
        for _ in range(5):
            client.h2.reset_stream(client.begin())
            client.h2.reset_stream(client.ask("s"))
            client.flush()
        empty = client.begin(end=True)
        bare = client.begin()
        client.h2.send_headers(bare, [("x", "y")], end_stream=True)
        assert await client.outcome(client.ask("s")) == ("0", 1)
        assert (await client.outcome(empty))[0] != "0"
        assert (await client.outcome(bare))[0] != "0"


@in_asyncio
async def test_requests_without_the_token_are_refused() -> None:
    async with connected(credentials=Credentials("secret-token-of-the-test-0123456789")) as (service, client):
        for _ in range(3):
            assert (await client.outcome(client.ask("s")))[0] == "16"
        known = ("authorization", "Bearer secret-token-of-the-test-0123456789")
        assert await client.outcome(client.ask("s", known)) == ("0", 1)
        assert await client.outcome(client.ask("s", known)) == ("0", 1)
        assert (await client.outcome(client.ask("s")))[0] == "16"
        assert service.asked + service.at_once == 2
