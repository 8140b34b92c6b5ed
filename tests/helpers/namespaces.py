"""Network namespaces: another machine, as far as the network goes, whose cable a test can pull."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import attrs

from tests.helpers.debian import why_missing

_EVERYTHING: Final = 3  # ETH_P_ALL, of packet(7)
_MOST: Final = 65_535
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 64 * 1024 * 1024


def why_not() -> str | None:
    """Why there can be no network namespaces here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := why_missing("ip", "iproute2"):
        return f"network namespaces: {missing}"
    name = f"snakepit-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return None


@attrs.frozen
class Machine:
    """A namespace, joined to this one by a cable. `host` is its address, and `prefix` runs a command in it."""

    name: str
    cable: str
    host: str
    prefix: tuple[str, ...]

    def pull(self) -> None:
        """Pull the cable at its end: nothing comes through, and nothing says so."""
        _run(*self.prefix, "ip", "link", "set", "there", "down")

    def plug_in(self) -> None:
        """Plug the cable in again."""
        _run(*self.prefix, "ip", "link", "set", "there", "up")


@contextmanager
def machine() -> Iterator[Machine]:
    """A namespace that lasts as long as the block."""
    key = secrets.token_bytes(3)
    name, cable = f"snakepit-{key.hex()}", f"sp{key.hex()}"
    subnet = f"10.{key[0] % 100 + 100}.{key[1]}.{key[2] & 0xFC}"
    start, last = subnet.rsplit(".", 1)
    ours, theirs = f"{start}.{int(last) + 1}", f"{start}.{int(last) + 2}"
    prefix = ("ip", "netns", "exec", name)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "there", "netns", name)
        _run("ip", "addr", "add", f"{ours}/30", "dev", cable)
        _run("ip", "link", "set", cable, "up")
        _run(*prefix, "ip", "addr", "add", f"{theirs}/30", "dev", "there")
        for link in ("lo", "there"):
            _run(*prefix, "ip", "link", "set", link, "up")
        yield Machine(name, cable, theirs, prefix)
    finally:
        _run("ip", "netns", "del", name)


class Sniffer:
    """Keeps all bytes that cross a cable while its block runs."""

    def __init__(self, cable: str) -> None:
        self._cable = cable
        self._heard = bytearray()
        self._ends = False

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((self._cable, 0))
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()
        self._socket.close()

    @property
    def heard(self) -> bytes:
        """The bytes of all packets so far, one behind the other."""
        return bytes(self._heard)

    def _listen(self) -> None:
        while True:
            try:
                self._heard += self._socket.recv(_MOST)
            except TimeoutError:  # what has crossed before the end has been read
                if self._ends:
                    return


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
