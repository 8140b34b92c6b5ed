"""Servers with a token and TLS: what clients reach that have not both, and how long they can hold a connection."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import http2, tls
from bridge_py.contract import connections, credentials, peers
from tests.helpers.certificates import Authority
from tests.helpers.hostile import LONGEST, counted_turns
from tests.security.test_other_users import STRANGER, as_root, run_attack

ROOT = Path(__file__).resolve().parents[2]
TOOLS = "tests.helpers.contract_tools:ContractTools"
OWN = ROOT / "bridge_py" / "__main__.py"
TOKEN: Final = "a-token-of-the-tests-that-nobody-else-has"  # the same in all processes of pytest
REFUSED = "UNAUTHENTICATED: the token is"


def own_address() -> str:
    """An address of this machine that other machines reach too."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return each.address
    pytest.skip("this machine has no address but loopback")


class Touched:
    """A host tool that notes its calls."""

    def __init__(self) -> None:
        self.count = 0

    def touch(self) -> int:
        """The number of calls."""
        self.count += 1
        return self.count


@asynccontextmanager
async def serving(address: bool | str = True, **options: Any) -> AsyncIterator[tuple[snakepit.Pool, Touched]]:
    async with snakepit.open_pool(TOOLS, workers=1, bridge_server=address, **options) as pool:
        touched = Touched()
        pool.expose(touched.touch)
        yield pool, touched


# The token.


async def test_a_client_without_the_token_reaches_nothing() -> None:
    async with serving(bridge_token=TOKEN) as (pool, touched):
        for token in (None, "x" * 16, TOKEN[:-1], TOKEN + "x", TOKEN.swapcase()):
            async with snakepit.open_client(pool.bridge_address, token=token) as client:
                for attempt in (
                    lambda client=client: client.ping(),
                    lambda client=client: client.execute_host_tool("touch"),
                    lambda client=client: client.execute_tool("add", {"a": 1, "b": 2}),
                    lambda client=client: client.initialize_session("s"),
                    lambda client=client: anext(client.execute_streaming_tool("count", {"n": 3})),
                    lambda client=client: anext(client.stream_telemetry()),
                ):
                    with pytest.raises(snakepit.RemoteError, match=REFUSED) as caught:
                        await attempt()
                    assert TOKEN not in str(caught.value)
        assert touched.count == 0
        assert not await pool.sessions.session_exists("s")
        async with snakepit.open_client(pool.bridge_address, token=TOKEN) as client:
            assert await client.execute_host_tool("touch") == 1
            assert [chunk async for chunk in client.execute_streaming_tool("count", {"n": 2})] == [{"i": 0}, {"i": 1}]


@pytest.mark.parametrize(
    ("lines", "reaches"),
    [
        ([f"Bearer {TOKEN}"], True),
        ([f"bearer {TOKEN}"], True),
        ([], False),
        ([""], False),
        ([TOKEN], False),
        ([f"Basic {TOKEN}"], False),
        ([f"Bearer  {TOKEN}"], False),
        ([f"Bearer {TOKEN} "], False),
        (["Bearer "], False),
        ([f"Bearer {TOKEN}", "Bearer other"], False),
        (["Bearer other", f"Bearer {TOKEN}"], False),
    ],
)
def test_the_form_of_the_token(lines: list[str], reaches: bool) -> None:
    headers = [(":path", "/x"), *(("authorization", line) for line in lines)]
    assert (credentials.Credentials(TOKEN).why_not(headers) is None) == reaches
    assert credentials.Credentials().why_not(headers) is None


RAW = """
import json, sys
import grpc

address, token, ca, *paths = sys.argv[1:]
if ca:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(open(ca, "rb").read()))
else:
    channel = grpc.insecure_channel(address)
found = []
with channel:
    for path in paths:
        call = channel.unary_unary(f"/snakepit.bridge.BridgeService/{path}")
        try:
            metadata = [("authorization", f"Bearer {token}")] if token else []
            found.append(call(b"\\n\\x01x", metadata=metadata, timeout=20)[:3].decode())
        except grpc.RpcError as error:
            found.append(error.code().name)
print(json.dumps(found))
"""


async def by_grpcio(address: str, token: str, ca: Path | str, *paths: str) -> str:
    """What a client with code of Google's gets; it runs in a process of its own."""
    with trio.fail_after(90):
        done = await trio.run_process(
            [sys.executable, "-c", RAW, address, token, str(ca), *paths], capture_stdout=True, capture_stderr=True
        )
    return done.stdout.decode().strip()


async def test_a_client_of_grpcio(authority: Authority, stranger_authority: Authority, context: ssl.SSLContext) -> None:
    refused = '["UNAUTHENTICATED", "UNAUTHENTICATED"]'
    async with serving(bridge_token=TOKEN) as (pool, _):
        assert await by_grpcio(pool.bridge_address, TOKEN, "", "Ping", "Nothing") == '["\\n\\u0001x", "UNIMPLEMENTED"]'
        assert await by_grpcio(pool.bridge_address, "", "", "Ping", "Nothing") == refused
    async with serving(bridge_token=TOKEN, bridge_tls=context) as (pool, _):
        assert await by_grpcio(pool.bridge_address, TOKEN, authority.file, "Ping") == '["\\n\\u0001x"]'
        assert await by_grpcio(pool.bridge_address, "x" * 20, authority.file, "Ping", "Nothing") == refused
        assert await by_grpcio(pool.bridge_address, TOKEN, stranger_authority.file, "Ping") == '["UNAVAILABLE"]'


async def test_endless_requests_without_the_token_cost_the_connection() -> None:
    async with serving(bridge_token=TOKEN) as (pool, _):
        async with snakepit.open_client(pool.bridge_address, token=TOKEN) as client, counted_turns() as turns:
            await client.ping()
            for attack in ("streams", "resets", "tinies", "late"):
                reached = await run_attack(attack, pool.bridge_address)
                assert reached["closed"], (attack, reached)
            await client.ping()
        turns.tell("requests without the token")
        assert turns.own < LONGEST


async def test_a_client_that_never_shows_the_token_cannot_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "STRANGER", 0.3)
    async with serving(bridge_token=TOKEN) as (pool, _):
        host, _, port = pool.bridge_address.rpartition(":")
        async with snakepit.open_client(pool.bridge_address, token=TOKEN) as client:
            await client.ping()
            with socket.create_connection((host, int(port))) as silent, trio.fail_after(20):
                silent.setblocking(False)
                await until_closed(silent)
            protocol = client._inner._channel._protocol
            await client.ping()
            assert client._inner._channel._protocol is protocol  # it is the connection of before


async def until_closed(found: socket.socket) -> None:
    while True:
        await trio.lowlevel.wait_readable(found)
        try:
            if not found.recv(65536):
                return
        except ConnectionError:
            return


# What needs which.


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "x" * 5000, "with space in it all", "ünïcödé" * 5, "tab\t" * 9, 5]
)
async def test_tokens_that_are_none(token: Any) -> None:
    with pytest.raises(snakepit.UsageError, match=r"bridge_token: give 16 to 4,096 .* secrets.token_urlsafe") as caught:
        async with serving(bridge_token=token):
            pass
    assert not token or repr(token) not in str(caught.value)
    with pytest.raises(snakepit.UsageError, match="token: give 16"):
        async with snakepit.open_client("127.0.0.1:1", token=token):
            pass


async def test_contexts_that_do_not_fit(authority: Authority, context: ssl.SSLContext) -> None:
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    wrong: Any
    for wrong, why in ((authority.client(), "not for servers"), ("cert.pem", "give an ssl.SSLContext")):
        with pytest.raises(snakepit.UsageError, match=f"bridge_tls.*{why}"):
            async with serving(bridge_tls=wrong):
                pass
    for wrong, why in ((context, "not for clients"), (unchecked, "does not check the server"), (True, "give an ssl.S")):
        with pytest.raises(snakepit.UsageError, match=f"tls.*{why}"):
            async with snakepit.open_client("127.0.0.1:1", tls=wrong):
                pass
    with pytest.raises(snakepit.UsageError, match="a Unix socket has no TLS"):
        async with snakepit.open_client("unix:/x", tls=authority.client()):
            pass


async def test_a_token_and_tls_are_for_servers(context: ssl.SSLContext) -> None:
    for name, value in (("bridge_token", TOKEN), ("bridge_tls", context)):
        with pytest.raises(snakepit.UsageError, match=f"{name}= is for bridge_server=, which is missing"):
            async with serving(False, **{name: value}):
                pass
    assert TOKEN not in repr(snakepit.PoolConfig(adapter=TOOLS, bridge_server=True, bridge_token=TOKEN))


async def test_an_address_of_other_machines_needs_both(authority: Authority, context: ssl.SSLContext) -> None:
    for options in ({}, {"bridge_token": TOKEN}, {"bridge_tls": context}):
        with pytest.raises(
            snakepit.UsageError, match=r"needs TLS and a token: give both, bridge_tls= and bridge_token="
        ):
            async with serving("0.0.0.0:0", **options):
                pass
    for options in ({}, {"token": TOKEN}, {"tls": authority.client()}):
        for address in ("192.0.2.1:1", "fd00::1:1", "0.0.0.0:1"):
            with pytest.raises(snakepit.UsageError, match=r"needs TLS and a token: give both, tls= and token="):
                async with snakepit.open_client(address, **options):
                    pass


async def test_a_name_that_stands_for_another_machine(monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext) -> None:
    """The name of this test leads to this machine, but not by loopback: a client must not send its token there."""
    mine = own_address()
    heard = b""
    with socket.create_server((mine, 0)) as listener:
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: real(mine if host == "far" else host, *a, **k))
        async with snakepit.open_client(f"far:{listener.getsockname()[1]}", token=TOKEN) as client:
            with (
                pytest.raises(snakepit.RemoteError, match="UNAVAILABLE: .* needs TLS and a token"),
                trio.fail_after(20),
            ):
                await client.ping()
        with listener.accept()[0] as found:
            found.settimeout(5)
            while piece := _received(found):
                heard += piece
    assert b"authorization" not in heard
    assert TOKEN.encode() not in heard


def _received(found: socket.socket) -> bytes:
    try:
        return found.recv(65536)
    except ConnectionError:
        return b""


# TLS.


async def test_a_client_with_both_by_an_address_of_other_machines(
    authority: Authority, stranger_authority: Authority, context: ssl.SSLContext
) -> None:
    async with serving(f"{own_address()}:0", bridge_token=TOKEN, bridge_tls=context) as (pool, touched):
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=authority.client()) as client:
            assert await client.execute_host_tool("touch") == 1
            assert await client.execute_tool("echo", {"value": "x" * 5_000_000}) == "x" * 5_000_000
            early = client.execute_streaming_tool("count", {"n": 10**9})
            assert await anext(early) == {"i": 0}
            await early.aclose()
        async with snakepit.open_client(pool.bridge_address, token="x" * 20, tls=authority.client()) as client:
            with pytest.raises(snakepit.RemoteError, match=REFUSED):
                await client.execute_host_tool("touch")
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=stranger_authority.client()) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE: .*certificate verify failed"):
                await client.execute_host_tool("touch")
        assert touched.count == 1


async def test_a_server_that_wants_certificates_of_its_clients(authority: Authority) -> None:
    strict = authority.server("strict", ["127.0.0.1"])
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(authority.file)
    known = authority.client()
    authority.certify(known, "client", ["127.0.0.1"])
    async with serving(bridge_token=TOKEN, bridge_tls=strict) as (pool, touched):
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=known) as client:
            assert await client.execute_host_tool("touch") == 1
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=authority.client()) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE"):
                await client.execute_host_tool("touch")
        assert touched.count == 1


async def test_a_server_whose_certificate_is_for_another_address(authority: Authority) -> None:
    other = authority.server("other", ["192.0.2.99"])
    async with serving(bridge_token=TOKEN, bridge_tls=other) as (pool, touched):
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=authority.client()) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE: .*certificate verify failed"):
                await client.execute_host_tool("touch")
        assert touched.count == 0


async def test_an_expired_certificate(authority: Authority) -> None:
    expired = authority.server("expired", ["127.0.0.1"], days=0)
    async with serving(bridge_token=TOKEN, bridge_tls=expired) as (pool, touched):
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=authority.client()) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE: .*expired"):
                await client.execute_host_tool("touch")
        assert touched.count == 0


async def test_no_tls_where_tls_is_spoken_and_the_reverse(authority: Authority, context: ssl.SSLContext) -> None:
    async with serving(bridge_token=TOKEN, bridge_tls=context) as (pool, touched):
        async with snakepit.open_client(pool.bridge_address, token=TOKEN) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE"), trio.fail_after(20):
                await client.execute_host_tool("touch")
        assert touched.count == 0
    async with serving(bridge_token=TOKEN) as (pool, touched):
        tls = authority.client()
        async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=tls, connect_timeout=0.5) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE"), trio.fail_after(20):
                await client.execute_host_tool("touch")
        assert touched.count == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes end after 3 s."""
    monkeypatch.setattr(tls, "HANDSHAKE", 3.0)
    monkeypatch.setattr(connections, "HANDSHAKE", 3.0)


def half_done(context: ssl.SSLContext) -> bytes:
    """The first flight of a client, whose second one never comes."""
    to_read, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(to_read, to_send, server_hostname="127.0.0.1").do_handshake()
    return to_send.read()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["silent", "half a hello", "a hello"])
async def test_half_done_handshakes_are_bounded_and_end(
    authority: Authority, context: ssl.SSLContext, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    hello = half_done(authority.client())
    sent = {"silent": b"", "half a hello": hello[:50], "a hello": hello}[how]
    mine = authority.client()
    with ExitStack() as held:
        async with serving(bridge_token=TOKEN, bridge_tls=context) as (pool, _):
            host, _, port = pool.bridge_address.rpartition(":")
            async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=mine) as client:
                await client.ping()
                before = len(os.listdir("/proc/self/fd"))
                async with counted_turns() as turns:
                    found = []
                    for _ in range(400):
                        each = held.enter_context(await connected(host, int(port)))
                        found.append(each)
                    for each in found:
                        with suppress(ConnectionError):
                            each.send(sent)
                    await client.ping()  # whoever is connected goes on
                    with trio.fail_after(60):
                        for each in found:
                            await until_closed(each)
                turns.tell(f"400 handshakes: {how}")
                assert "there are 256 already" in caplog.text
                await client.ping()
                with trio.fail_after(10):
                    while len(os.listdir("/proc/self/fd")) > before + len(found):
                        await trio.sleep(0.05)
            async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=mine) as client:  # there is room
                await client.ping()
    assert turns.own < LONGEST


async def connected(host: str, port: int) -> socket.socket:
    found = trio.socket.socket()
    await found.connect((host, port))
    plain = socket.socket(fileno=found.detach())
    plain.setblocking(False)
    return plain


async def test_silent_connections_keep_no_new_client_out(authority: Authority, context: ssl.SSLContext) -> None:
    with ExitStack() as held:
        async with serving(bridge_token=TOKEN, bridge_tls=context) as (pool, _):
            host, _, port = pool.bridge_address.rpartition(":")
            for number in range(100):
                each = held.enter_context(await connected(host, int(port)))
                each.send(b"\x16\x03\x01" if number < 10 else b"")
            with trio.fail_after(tls.HANDSHAKE / 2):
                async with snakepit.open_client(pool.bridge_address, token=TOKEN, tls=authority.client()) as client:
                    await client.ping()


@pytest.mark.usefixtures("quick")
async def test_a_pool_ends_beside_half_done_handshakes(context: ssl.SSLContext) -> None:
    with ExitStack() as held:
        with trio.fail_after(30):
            async with serving(bridge_token=TOKEN, bridge_tls=context) as (pool, _):
                host, _, port = pool.bridge_address.rpartition(":")
                found = [held.enter_context(await connected(host, int(port))) for _ in range(20)]
                await trio.sleep(0.1)
                found.append(held.enter_context(await connected(host, int(port))))
            for each in found:
                await until_closed(each)


@pytest.mark.usefixtures("quick")
async def test_a_server_that_never_answers_a_handshake(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, trio.fail_after(30):
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        async with snakepit.open_client(address, token=TOKEN, tls=authority.client(), connect_timeout=1) as client:
            with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE: .*no connection with TLS within 3 s"):
                await client.ping()


# Whose connections they are.


@as_root
async def test_a_stranger_of_this_machine_stays_out_by_every_address(
    context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving("0.0.0.0:0", bridge_token=TOKEN, bridge_tls=context) as (pool, _):
        port = pool.bridge_address.rpartition(":")[2]
        for host in ("127.0.0.1", own_address()):
            assert await run_attack("often", f"{host}:{port}", STRANGER) == {"closed": 300}
        assert "uid 65534" in caplog.text


async def test_a_connection_of_another_machine_is_taken_only_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's sockets are in no table of this one. That is what is played here."""
    monkeypatch.setattr(peers, "_uid_of_tcp", lambda _connection: None)
    nobody = "a connection comes from nobody who can be found"
    for host in ("127.0.0.1", own_address()):
        with (
            socket.create_server((host, 0)) as listener,
            socket.create_connection(listener.getsockname()),
            listener.accept()[0] as accepted,
        ):
            assert peers.why_no_client(accepted) == nobody
            why = peers.why_no_client(accepted, takes_other_machines=True)
            assert why == (nobody if host == "127.0.0.1" else None)
