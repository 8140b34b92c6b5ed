"""Addresses of the wire contract, and sockets that listen there."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Final, NamedTuple

from bridge_py.wire.errors import UsageError

UNIX: Final = "unix:"
NEEDS: Final = "other machines reach this address, so it needs TLS and a token"


class Address(NamedTuple):
    """Where a server of the contract is: a host and a port, or the path of a Unix socket."""

    host: str | None
    port: int | None
    path: str | None = None


def parse_address(text: str) -> Address:
    """Read "host:port" or "unix:/path". Raises `UsageError`."""
    if text.startswith(UNIX) and len(text) > len(UNIX):
        return Address(None, None, text.removeprefix(UNIX))
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise UsageError(f'address {text!r}: write it as "127.0.0.1:50051" or "unix:/path/to/socket"')
    return Address(host, int(port))


def listen(host: str, port: int, *, other_machines: bool = False) -> socket.socket:
    """Open a socket that listens; port 0 stands for any free port.

    Raises `OSError`, and `PermissionError` among them for an address that other machines reach, without
    `other_machines`.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    if not other_machines and not is_loopback(str(address[0])):
        raise PermissionError(NEEDS)
    # grpclib sets TCP_NODELAY only on a socket that names its protocol. Without TCP_NODELAY each answer takes 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def listen_unix(path: str | os.PathLike[str]) -> socket.socket:
    """Open a Unix socket that listens at a path, in a folder that is closed to other users. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.fspath(path))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def is_loopback(host: str) -> bool:
    """Whether an address, in numbers, is one that only programs of this machine reach."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
