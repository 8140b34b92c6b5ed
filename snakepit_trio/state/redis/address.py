"""Where a Redis server is, and how to sign in there. No password is ever part of a text for humans."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import attrs
import trio

from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install

try:
    import anyio
    from anyio.abc import ByteStream
    from coredis.connection import BaseConnection, Location, TCPLocation, UnixDomainSocketLocation
    from coredis.connection._statistics import ConnectionStatistics
    from coredis.exceptions import ConnectionError as Disconnected
except ModuleNotFoundError as missing:
    raise UsageError(f"RedisStore needs the package coredis: {install('redis')} ({missing})") from None

_PORT: Final = 6379
_FORMS: Final = (
    "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://... for TLS, or unix://[USER:PASSWORD@]/PATH[?db=DB]"
)


class Unfit(Disconnected):
    """A server is no good for a store. The text says why."""


class Connection(BaseConnection):
    """A connection over a stream that is open already.

    Connections that coredis opens itself leave things behind that nobody closes, where a server cannot be reached.
    """

    def __init__(self, address: Address, location: Location, stream: ByteStream) -> None:
        super().__init__(location, db=address.db, username=address.username, password=address.password)
        self.address = address
        self.is_lost = False
        self.answered = self.confirmed = 0  # changes that the server has made, and that its replicas have
        self.confirming = trio.Lock()
        self._opened = _Bounded(stream, address.most_bytes, self.statistics)

    def describe(self) -> str:
        """What it is, without the user and the password."""
        return f"<Connection to {self.address}>"

    async def ask(self, command: bytes, *args: bytes | int) -> Any:
        """Send a command, and return the answer. If cancelled, the answer is dropped when it comes."""
        return await self.create_request(command, *args)

    def give_up(self, problem: str) -> None:
        """End it for this reason. Where it is just cancelled, coredis logs that it failed unexpectedly."""
        self._last_error = Unfit(problem)
        self.invalidate()

    async def _connect(self) -> ByteStream:
        return self._opened


class _Bounded(ByteStream):
    """A stream that ends if one answer is too large: coredis would keep it in memory, however large it is."""

    def __init__(self, stream: ByteStream, most: int | None, counts: ConnectionStatistics) -> None:
        self._stream = stream
        self._most = most
        self._counts = counts
        self._answers = self._bytes = 0

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the stream."""
        return self._stream.extra_attributes

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive some bytes. Raises `Unfit` if an answer is too large."""
        data = await self._stream.receive(max_bytes)
        if self._answers != self._counts.requests_resolved:
            self._answers, self._bytes = self._counts.requests_resolved, 0
        self._bytes += len(data)
        if self._most is not None and self._bytes > self._most:
            raise Unfit(f"its answer has more than {self._most} bytes: raise Quotas(bytes=...)")
        return data

    async def send(self, item: bytes) -> None:
        """Send all of the bytes."""
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Close the sending half."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


@attrs.frozen
class Address:
    """One server. `str` gives where it is, without the user and the password."""

    host: str
    port: int
    path: str
    db: int
    tls: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    most_bytes: int | None = None  # of one answer

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"{'redis' if self.tls is None else 'rediss'}://{self.host}:{self.port}/{self.db}"

    async def connect(self) -> Connection:
        """Open a connection, for the caller to run at once. Raises what `anyio` raises."""
        if self.path:
            return Connection(self, UnixDomainSocketLocation(self.path), await anyio.connect_unix(self.path))
        if self.tls is None:
            stream: ByteStream = await anyio.connect_tcp(self.host, self.port)
        else:
            # Redis closes without the farewell of TLS. Its protocol tells itself where an answer ends.
            stream = await anyio.connect_tcp(self.host, self.port, ssl_context=self.tls, tls_standard_compatible=False)
        return Connection(self, TCPLocation(self.host, self.port), stream)


def read_address(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    tls: ssl.SSLContext | None = None,
    most_bytes: int | None = None,
) -> Address:
    """Read a URL. What it says of the user and the password goes before the arguments. Raises `UsageError`."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORT
        db = _db_of(parts)
    except (ValueError, TypeError, AttributeError):
        raise _refuse("the address") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not (
        parts.path if parts.scheme == "unix" else parts.hostname
    ):
        raise _refuse("the address")
    if tls is not None and parts.scheme != "rediss":
        raise UsageError(f"ssl_context= is given, but {parts.scheme}:// is not encrypted: give rediss://")
    return Address(
        host=parts.hostname or "",
        port=port,
        path=unquote(parts.path) if parts.scheme == "unix" else "",
        db=db,
        tls=(tls or ssl.create_default_context()) if parts.scheme == "rediss" else None,
        username=unquote(parts.username) if parts.username else username,
        password=unquote(parts.password) if parts.password else password,
        most_bytes=most_bytes,
    )


def _db_of(parts: SplitResult) -> int:
    options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    text = "" if parts.scheme == "unix" else parts.path.strip("/")
    text = options.pop("db", [text or "0"])[0]
    if options or parts.fragment or not text.isdecimal():
        raise ValueError(parts.query)
    return int(text)


def _refuse(what: str) -> UsageError:
    # The address itself may have a password in it, in a place where nobody looks for one.
    return UsageError(f"{what} of the Redis server cannot be read: give {_FORMS}")
