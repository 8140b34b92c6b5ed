"""Who may call: the bearer token, and what keeps foreign web pages out."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from .asgi import Scope, bearer_of
from .http_requests import Headers
from .problems import Problem

_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Refuses requests that do not come from a client who may call.

    A web page in a browser on this machine can reach a server on loopback, even by a name of its own that resolves to
    127.0.0.1 (DNS rebinding). Such a request has a foreign name in Host, or in Origin.
    """

    def __init__(self, token: str | None, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._token = None if token is None else token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def check(self, scope: Scope, headers: Headers) -> None:
        """Raise a `Problem` with 421, 403 or 401 for a request that is not to be answered."""
        self.check_site(scope, headers)
        self._check_token(headers)

    def check_site(self, scope: Scope, headers: Headers) -> None:
        """Raise a `Problem` with 421 or 403 for a request that a page of another site may have made."""
        self._check_host(scope, headers)
        self._check_origin(headers)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        allowed = self._hosts
        if not allowed and _is_loopback((scope.get("server") or ("", 0))[0]):
            allowed = _LOCAL_NAMES
        name = _host_name(headers.one("host") or "")
        if allowed and name not in allowed and "*" not in allowed:
            raise Problem(
                421,
                "wrong-host",
                "The server does not have this name",
                f"Host: {name[:100]!r} is none of the server's names; name it in allowed_hosts",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.one("origin")
        if origin is None or origin.lower() in self._origins:
            return
        host = (headers.one("host") or "").lower()
        if not host or _authority(origin) != host:
            raise Problem(
                403,
                "foreign-origin",
                "Pages of other sites may not call",
                f"Origin: {origin[:100]!r} is another site; name it in allowed_origins",
            )

    def _check_token(self, headers: Headers) -> None:
        if self._token is None:
            return
        given = bearer_of((headers.one("authorization") or "").encode("latin-1"))
        if given is None:
            raise _unauthorized("send Authorization: Bearer with the server's token", 'Bearer realm="snakepit"')
        if not hmac.compare_digest(given, self._token):
            raise _unauthorized("this is not the server's token", 'Bearer realm="snakepit", error="invalid_token"')


def _unauthorized(detail: str, challenge: str) -> Problem:
    header = ("www-authenticate", challenge)
    return Problem(401, "unauthorized", "The token is missing or wrong", detail, headers=(header,))


def _host_name(host: str) -> str:
    """The name in a Host header, without the port, and without the brackets of an address of IPv6."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
