"""The parts of ASGI 3 that we use: types, the headers of a request, and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import attrs

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[str, str]

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
#: Nobody may keep what a tool has answered, or take it for another type than it says.
_ALWAYS: Final[tuple[Header, ...]] = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))


def bearer_of(authorization: bytes) -> bytes | None:
    """The token of an Authorization header; None if it has none."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


class ClientLeft(Exception):
    """The client has closed its connection, or its stream. There is nobody to answer."""


@attrs.frozen
class Answer:
    """A whole response."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send, *, without_body: bool = False) -> None:
        """Send the response; for HEAD without its body. Raises `ClientLeft`."""
        length = ("content-length", str(len(self.body)))
        await start(send, self.status, (("content-type", self.content_type), length, *self.headers))
        await send_part(send, b"" if without_body else self.body, more=False)


async def start(send: Send, status: int, headers: Iterable[Header]) -> None:
    """Send the status and the headers of a response. Raises `ClientLeft`."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, *_ALWAYS)]
    await _send(send, {"type": "http.response.start", "status": status, "headers": raw})


async def send_part(send: Send, body: bytes, *, more: bool) -> None:
    """Send a part of the body; returns when the server takes more. Raises `ClientLeft`."""
    await _send(send, {"type": "http.response.body", "body": body, "more_body": more})


async def _send(send: Send, message: Message) -> None:
    try:
        await send(message)
    except OSError as error:
        # Servers of ASGI 2.4 raise it when the client has gone.
        raise ClientLeft from error


async def until_left(receive: Receive) -> None:
    """Return when the client has left. What it still sends is dropped, so that the server goes on reading."""
    while (await receive())["type"] != "http.disconnect":
        pass
