"""The MCP server over streamable HTTP, as an ASGI application, and over stdin and stdout."""

from __future__ import annotations

import hmac
import importlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from bridge_py.contract.listening import is_loopback
from bridge_py.contract.peers import why_no_client
from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install
from snakepit_trio._calls.call import Timeout
from snakepit_trio._util.validation import refuse

from .asgi import Message, Receive, Scope, Send, bearer_of
from .served_tools import ServedTools, SessionPool

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_LONGEST_LINE: Final = 64 * 1024 * 1024  # bytes
_PIECE: Final = 4096  # bytes that a pipe takes whole once it can be written to


def _check_installed() -> None:
    try:
        importlib.import_module("mcp.server")
    except ImportError as error:
        raise UsageError(f"the MCP server needs the package mcp: {install('mcp')} ({error})") from error


def load_sdk() -> Any:
    """Import the server's module, and with it the SDK. Raises `UsageError` if the SDK is not installed."""
    _check_installed()
    from . import mcp_server

    return mcp_server


class McpApp:
    """An ASGI application that serves a pool's tools to MCP clients. Made by `pool.mcp_app`.

    It answers at any path, so it can be mounted anywhere. Its sessions live in a nursery, which its lifespan opens: run
    it by a server that has lifespans, such as hypercorn on trio, or, if it is mounted in another application, let that
    application's lifespan be `app.lifespan`.
    """

    def __init__(
        self,
        tools: ServedTools,
        name: str,
        instructions: str | None,
        token: str | None,
        hosts: Sequence[str],
        origins: Sequence[str] | None,
    ) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        from mcp.server.transport_security import TransportSecuritySettings

        if token is not None and not (isinstance(token, str) and token.isascii() and token.strip()):
            raise refuse("token", "...", "give a text of ASCII characters")
        module = load_sdk()
        self._gone = module.GONE
        self._token = None if token is None else token.encode("ascii")
        #: Whether only programs of this user may call: a token says more than a user.
        self._is_for_user = token is None and tools.pool.config.open_to == "user"
        self._tools = tools
        has_all_hosts = "*" in hosts
        # The SDK checks both or neither, so where all hosts may be named, the origins are checked here.
        self._origins = origins if has_all_hosts else None
        checks = TransportSecuritySettings(
            enable_dns_rebinding_protection=not has_all_hosts,
            allowed_hosts=[form for host in hosts for form in (host, f"{host}:*")],
            allowed_origins=[f"http://{host}:*" for host in _LOOPBACK] if origins is None else list(origins),
        )
        server = module.ToolServer(tools, name, instructions).server
        self._manager = StreamableHTTPSessionManager(server, security_settings=checks)
        self._is_running = False

    @asynccontextmanager
    async def lifespan(self, _application: object = None) -> AsyncIterator[None]:
        """Serve for the time of the block; once only. When it ends, all calls of clients are stopped.

        Raises what asking a worker for its tools raises.
        """
        await self._tools.load()
        async with self._manager.run():
            self._is_running = True
            try:
                yield
            finally:
                self._is_running = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise UsageError(f"an MCP server has no {scope['type']} connections: send requests of HTTP")

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            kind = "shutdown" if self._manager._has_started else "startup"
            await send({"type": f"lifespan.{kind}.failed", "message": str(error)})  # noqa: ASYNC120 - then the server ends
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_running:
            raise UsageError("this MCP server does not run yet: make its lifespan that of the application it is in")
        if "/.well-known/" in scope["path"]:  # clients look there for how to sign in: nowhere
            await _refuse(send, 404, "not found")
        elif self._origins is not None and not _is_from(scope, self._origins):
            await _refuse(send, 403, "Invalid Origin header")
        elif not self._is_allowed(scope):
            await _refuse(send, 401, "give the token as 'Authorization: Bearer ...'")
        elif self._is_for_user and (problem := _why_no_client(scope)):
            await _refuse(send, 403, f"{problem}: programs of other users need a token")
        else:
            scope = {**scope, self._gone: (gone := trio.Event())}
            await self._manager.handle_request(scope, _watched(receive, gone), send)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._token is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        token = bearer_of(given[0]) if len(given) == 1 else None
        return token is not None and hmac.compare_digest(token, self._token)


def _is_from(scope: Scope, origins: Sequence[str]) -> bool:
    """Whether a request comes from a page of these origins, or from no page. `:*` at the end stands for any port."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
    return all(
        origin in origins or any(each.endswith(":*") and origin.startswith(each[:-1]) for each in origins)
        for origin in given
    )


@attrs.frozen
class _Connection:
    """What a connection's user is found by."""

    client: tuple[str, int]
    server: tuple[str, int]
    family: int = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return self.client

    def getsockname(self) -> tuple[str, int]:
        return self.server


def _why_no_client(scope: Scope) -> str | None:
    """Why a request comes from another user of this machine; None if it does not, or comes from another machine."""
    client, server = scope.get("client"), scope.get("server")
    try:
        if not (client and server and is_loopback(server[0]) and is_loopback(client[0])):
            return None
    except ValueError:  # these are no addresses: a test calls the application, or a Unix socket does
        return None
    return why_no_client(_Connection((client[0], client[1]), (server[0], server[1])))


def _watched(receive: Receive, gone: trio.Event) -> Receive:
    async def watching() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect":
            gone.set()
        return message

    return watching


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def make_app(
    pool: SessionPool,
    functions: Sequence[Callable[..., Any]],
    tools: Sequence[str] | None,
    timeout: Timeout,
    name: str | None,
    instructions: str | None,
    token: str | None,
    allowed_hosts: Sequence[str] | None,
    allowed_origins: Sequence[str] | None,
) -> McpApp:
    """Make the application. See `Pool.mcp_app`."""
    _check_installed()
    for what, texts in (("tools", tools), ("allowed_hosts", allowed_hosts), ("allowed_origins", allowed_origins)):
        if isinstance(texts, str):
            raise refuse(what, texts, "give a list of texts")
    served = ServedTools(pool, functions, tools, timeout)
    hosts = _LOOPBACK if allowed_hosts is None else allowed_hosts
    return McpApp(served, name or pool.config.name, instructions, token, hosts, allowed_origins)


# Stdin and stdout.


class Streams:
    """The client's ends of stdin and stdout, in place of the process's own, from which everybody else is kept off.

    While the block runs, file 0 is empty and file 1 is stderr: whatever the application or a worker prints there does
    not reach the client.
    """

    def __enter__(self) -> Streams:
        sys.stdout.flush()
        self._reading, self._writing = os.dup(0), os.dup(1)  # neither is inherited
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        os.dup2(self._reading, 0)
        os.dup2(self._writing, 1)
        os.close(self._reading)
        os.close(self._writing)

    async def _wait(self, wait: Callable[[int], Awaitable[None]], file: int) -> None:
        try:
            await wait(file)
        except PermissionError:  # of a file on disk, which never lets anybody wait
            await trio.lowlevel.checkpoint()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Read lines until the client closes its end."""
        begun: list[bytes] = []  # the pieces of a line that has not ended
        size = 0
        while True:
            await self._wait(trio.lowlevel.wait_readable, self._reading)
            if not (data := os.read(self._reading, 1 << 16)):
                return
            *lines, rest = data.split(b"\n")
            for line in lines:
                yield b"".join([*begun, line]).decode("utf-8", "replace")
                begun, size = [], 0
            begun.append(rest)
            size += len(rest)
            if size > _LONGEST_LINE:
                raise UsageError(f"the client has sent a line of more than {_LONGEST_LINE} bytes")

    async def write(self, text: str) -> None:
        """Write to the client. Raises `OSError` if it has gone."""
        data = memoryview(text.encode())
        while data:
            await self._wait(trio.lowlevel.wait_writable, self._writing)
            data = data[os.write(self._writing, data[:_PIECE]) :]

    async def flush(self) -> None:
        """Do nothing: nothing is kept back."""
        await trio.lowlevel.checkpoint()


async def serve_stdio(
    pool: SessionPool, streams: Streams, timeout: Timeout, name: str | None = None, instructions: str | None = None
) -> None:
    """Serve one client over stdin and stdout, until it closes its end or goes away. All its calls have ended then.

    `streams` is entered already. Raises `UsageError` if the SDK is not installed.
    """
    module = load_sdk()
    from mcp.server.stdio import stdio_server

    tools = ServedTools(pool, (), None, timeout)
    await tools.load()
    async with pool.session() as session:
        server = module.ToolServer(tools, name or pool.config.name, instructions, session.id).server
        ends: Any = streams
        try:
            async with stdio_server(ends, ends) as (reading, writing):
                await server.run(reading, writing, server.create_initialization_options())
        except* (BrokenPipeError, ConnectionResetError):
            pass  # the client has gone
