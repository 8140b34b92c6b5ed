"""The worker's end of a link over TCP, for a host on another machine: mutual TLS, and one host that proves itself.

A peer gets nothing, and does not use up the only link, before it has shown three things: a certificate for hosts of the
pool's authority, that it is the very certificate that the host has said it would use, and the secret in its hello. The
worker's own hello comes after that.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from typing import Any, Final

import msgspec

from bridge_py.http2 import BoundedServer
from bridge_py.tls import Material, TlsDoor
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.errors import RemoteProtocolError, UsageError
from bridge_py.wire.frames import Kind
from bridge_py.wire.hellos import HostHello, read_hello

from .channel import BatchCodec, link_configuration

HELLO: Final = 5.0  # seconds from a host's certificate to its hello, and those of a handshake
_AT_ONCE: Final = 32  # handshakes
_MOST_OF_ONE: Final = 8  # connections of one address in their handshakes: a flood from there keeps nobody else off


class RemoteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker must know to serve a host on another machine. Times are in seconds.

    `host_sha256` is the digest of the host's certificate, in hexadecimal; empty if any certificate for clients of the
    authority will do. `silence` is the time after which a link is dead that nothing comes on, `frozen` the time if the
    machine answers and its process says nothing, and `first_host` the time that the worker waits for its host.
    """

    tls: Material
    host_sha256: str = ""
    silence: float = 6.0
    frozen: float = 90.0
    first_host: float = 30.0


def read_settings(descriptor: int) -> RemoteSettings:
    """Read the settings from a file of JSON, and close it. Raises `UsageError` for anything else."""
    try:
        with open(descriptor, "rb") as file:
            return msgspec.json.decode(file.read(), type=RemoteSettings)
    except msgspec.DecodeError as error:
        raise UsageError(f"--tls-fd: the settings of the link cannot be read: {error}") from None


class RemoteServer(BoundedServer):
    """A server for one host at a TCP socket that listens."""

    def __init__(self, handlers: Any, settings: RemoteSettings) -> None:
        super().__init__([handlers], BatchCodec(), link_configuration())
        self._settings = settings
        self._door: TlsDoor | None = None

    def serve(self, listener: socket.socket) -> None:
        """Begin to serve. Raises `UsageError` if the certificates cannot be used."""
        context = self._settings.tls.server()
        self._door = TlsDoor(self, listener, context, handshake=HELLO, at_once=_AT_ONCE, most_of_one=_MOST_OF_ONE)

    def take_no_more(self) -> None:
        """Take no more connections, and end the handshakes. The connections that are open go on."""
        assert self._door is not None
        self._door.close()

    def why_not_peer(self, transport: Any) -> str | None:
        """Why a connection that has made its handshake is refused; None if the host is at its other end."""
        return why_no_host(transport.get_extra_info("ssl_object"), self._settings.host_sha256)


def why_no_host(connection: Any, host_sha256: str) -> str | None:
    """Why the peer of a TLS connection is not the host; None if it is."""
    certificate = None if connection is None else connection.getpeercert(binary_form=True)
    if certificate is None:
        return "a connection is closed: its client has no certificate"
    digest = hashlib.sha256(certificate).hexdigest()
    if host_sha256 and not hmac.compare_digest(digest, host_sha256):
        return "a connection is closed: its client has a certificate of our authority, but not the one of our host"
    return None


def check_first_batch(data: bytes, secret: str, max_frame: int) -> None:
    """Check the first batch of a peer, which begins with its hello, before anything of ours reads it.

    Raises `ProtocolError` and `DecodeError` unless the peer knows the secret.
    """
    frames = Conversation(Side.WORKER, max_frame=max_frame).receive(data)
    if not frames or frames[0].kind != Kind.HELLO:
        raise RemoteProtocolError("its first words are no hello")
    read_hello(frames[0].body, HostHello, secret)
