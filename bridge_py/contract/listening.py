"""Listening sockets for servers of the wire contract."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens; port 0 stands for any free port. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
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
