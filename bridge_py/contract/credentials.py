"""What lets clients and servers of the wire contract trust each other beyond this machine: a token, and TLS.

Each request carries the token in its metadata, as `authorization: Bearer <token>`.
"""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from collections.abc import Iterable
from typing import Final

from bridge_py.wire.errors import UsageError

from .listening import NEEDS, Address, is_loopback, parse_address

SHORTEST: Final = 16  # characters of a token
LONGEST: Final = 4096
_HEADER: Final = "authorization"
_SCHEME: Final = "Bearer"


class Credentials:
    """The token and the TLS context of one side; None for what it does not have."""

    def __init__(self, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.token = token
        self.tls = tls

    @property
    def suffice(self) -> bool:
        """Whether they are enough for addresses that other machines reach."""
        return self.token is not None and self.tls is not None

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that a client adds to each request."""
        return {} if self.token is None else {_HEADER: f"{_SCHEME} {self.token}"}

    def why_not(self, headers: Iterable[tuple[str, str]]) -> str | None:
        """Why a request with these headers must be refused; None if it has the token, or needs none."""
        if self.token is None:
            return None
        found = [value for name, value in headers if name == _HEADER]
        scheme, _, given = found[0].partition(" ") if len(found) == 1 else ("", "", "")
        # The time of this comparison does not tell how much of a token is right.
        is_right = hmac.compare_digest(given.encode(), self.token.encode())
        if is_right and scheme.lower() == _SCHEME.lower():
            return None
        return f'the token is {"wrong" if found else "missing"}: send it in the metadata, as "{_HEADER}: {_SCHEME} ..."'


def reachable(text: str, credentials: Credentials) -> Address:
    """Read the address of a client's peer. Raises `UsageError` if the client must not use it with these credentials."""
    address = parse_address(text)
    check_token("token", credentials.token)
    check_tls("tls", credentials.tls, server=False)
    if address.path is not None and credentials.tls is not None:
        raise UsageError(f"address {text!r}: a Unix socket has no TLS: leave tls= out")
    if _is_far(address.host) and not credentials.suffice:
        raise UsageError(f"address {text!r}: {NEEDS}: give both, tls= and token=")
    return address


def _is_far(host: str | None) -> bool:
    """Whether a host is an address, and not a name, that is on another machine."""
    try:
        ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return False
    return not is_loopback(host or "")


def of_client(token: str | None, ca_file: str) -> Credentials:
    """The credentials of a client that trusts the certificates of a file; the empty text is for no TLS.

    Raises `UsageError` if the file cannot be read.
    """
    try:
        return Credentials(token, ssl.create_default_context(cafile=ca_file) if ca_file else None)
    except OSError as error:
        raise UsageError(f"{ca_file}: no certificate can be read: {error}") from None


def check_token(name: str, token: object) -> None:
    """Raise `UsageError` for anything but a token or None. The error does not show the token."""
    if token is None:
        return
    if not isinstance(token, str) or not SHORTEST <= len(token) <= LONGEST or not _is_plain(token):
        raise UsageError(
            f"{name}: give {SHORTEST} to {LONGEST:,} characters of ASCII without spaces, such as "
            "secrets.token_urlsafe(), or None for no token"
        )


def check_tls(name: str, context: object, *, server: bool) -> None:
    """Raise `UsageError` for anything but None or a TLS context for a server, or a client that checks its server."""
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        raise UsageError(f"{name}={context!r:.200}: give an ssl.SSLContext, or None for no TLS")
    if server and context.protocol != ssl.PROTOCOL_TLS_SERVER:
        raise UsageError(f"{name}: this context is not for servers: make it by ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)")
    if not server and context.protocol != ssl.PROTOCOL_TLS_CLIENT:
        raise UsageError(f"{name}: this context is not for clients: make it by ssl.create_default_context(cafile=...)")
    if not server and context.verify_mode != ssl.CERT_REQUIRED:
        raise UsageError(f"{name}: this context does not check the server: its verify_mode must be ssl.CERT_REQUIRED")


def _is_plain(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token
