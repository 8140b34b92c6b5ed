"""Whose sockets are at the other end: the users of this machine that a server or a client deals with.

The kernel tells it: sock_diag(7) finds one socket in some 15 µs. Where that is missing, as in some sandboxes, the
tables in /proc tell it too, which takes milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from .listening import is_loopback

#: Who may connect: programs of this user and of root, or every program of this machine.
OpenTo = Literal["user", "machine"]
Address = tuple[str, int]
#: The kernel's tables of TCP sockets. An IPv4 connection is in the second one if its socket is an IPv6 socket.
TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_TRIES: Final = 3  # a table that changes while it is read may lack an entry
_ESTABLISHED: Final = 1
_LISTENS: Final = 10
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
_NETLINK_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_HEAD: Final = struct.Struct("=IHHII")  # length, type, flags, number, port
_ASKED: Final = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_PORTS: Final = struct.Struct("!HH")
_ANY_SOCKET: Final = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface, cookie
_SOCKET: Final = struct.Struct("=BBxx4s56xII")  # family, state, ports, then uid and inode behind the rest
_NOBODY: Final = ("0.0.0.0", 0)  # noqa: S104 - nothing is bound to it


class _Found(NamedTuple):
    uid: int
    host: str  # as the table writes it


def why_no_client(connection: Any, *, takes_other_machines: bool = False) -> str | None:
    """Why an accepted connection must be refused; None if its other end belongs to this user or to root.

    An end that cannot be found belongs to nobody: its program may have closed it already. If it does not come by
    loopback, it may be on another machine, and `takes_other_machines` takes it.
    """
    try:
        uid = _uid_of_unix(connection) if connection.family == socket.AF_UNIX else _uid_of_tcp(connection)
        if uid is None and takes_other_machines and not is_loopback(connection.getpeername()[0]):
            return None
    except (OSError, ValueError) as error:
        return f"the user of a connection cannot be found: {error}"
    return None if _is_ours(uid) else f"a connection comes from {_named(uid)}"


def why_no_server(host: str, port: int) -> str | None:
    """Why a TCP port of this machine must not be used; None if this user or root alone serves it."""
    uids = [_ask(_LISTENS, (host, port), _NOBODY)] if _has_diag() else _listening(host, port)
    stranger = next((uid for uid in uids if not _is_ours(uid)), None)
    return f"port {port} is served by {_named(stranger)}" if stranger is not None or uids in ([], [None]) else None


def _is_ours(uid: int | None) -> bool:
    return uid in (0, os.geteuid())


def _named(uid: int | None) -> str:
    return "nobody who can be found" if uid is None else f"the user with uid {uid}"


def _uid_of_unix(connection: Any) -> int:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def _uid_of_tcp(connection: Any) -> int | None:
    # The other end has the same two addresses, the other way round.
    theirs, ours = connection.getpeername()[:2], connection.getsockname()[:2]
    return _ask(_ESTABLISHED, theirs, ours) if _has_diag() else _look_up(theirs, ours)


# By sock_diag.


@functools.cache
def _has_diag() -> bool:
    """Whether the kernel answers: it says the same of a socket that is not there and of a module that it lacks."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return _ask(_LISTENS, listener.getsockname(), _NOBODY) is not None
    except OSError:
        return False


def _ask(state: int, local: Address, remote: Address) -> int | None:
    """The uid of the program that has a TCP socket in this state; None if there is none."""
    family, place = _packed(local[0])
    body = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + _PORTS.pack(local[1], remote[1])
    body += place.ljust(16, b"\0") + _packed(remote[0])[1].ljust(16, b"\0") + _ANY_SOCKET
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(_HEAD.pack(_HEAD.size + len(body), _BY_FAMILY, _REQUEST, 0, 0) + body)
        answer = kernel.recv(1024)
    if _HEAD.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    _, its_state, ports, uid, inode = _SOCKET.unpack_from(answer, _HEAD.size)
    # If there is no such connection, the kernel tells of the socket that listens at the address.
    if (its_state, ports) != (state, _PORTS.pack(local[1], remote[1])):
        return None
    # A socket that its program has closed may count as root's. It has no inode.
    return int(uid) if inode else None


# By the tables.


def _look_up(theirs: Address, ours: Address) -> int | None:
    pairs = zip(_written(theirs[0]), _written(ours[0]), strict=True)
    needles = [f"{their}:{theirs[1]:04X} {our}:{ours[1]:04X} {_ESTABLISHED:02X} " for their, our in pairs]
    for _ in range(_TRIES):
        if (found := next(_lines(needles), None)) is not None:
            return found.uid
    return None


def _listening(host: str, port: int) -> list[int]:
    """The uids of the programs that listen at an address, or everywhere at this port."""
    places = {*_written(host), "0" * 8, "0" * 32}
    needles = [f"{place}:{port:04X} {'0' * len(place)}:0000 {_LISTENS:02X} " for place in places]
    return [found.uid for found in _lines(needles)]


def _lines(needles: list[str]) -> Iterator[_Found]:
    """The sockets whose lines have one of these texts, but no sockets whose programs have closed them."""
    for table in TABLES:
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as lines:  # there may be no IPv6
            for line in lines:
                if any(needle in line for needle in needles):
                    _, local, _, _, _, _, _, uid, _, inode, *_ = line.split()
                    if inode != "0":
                        yield _Found(int(uid), local.partition(":")[0])


def _written(host: str) -> tuple[str, ...]:
    """An address as the tables write it: in the form of IPv4, if there is one, and in the form of IPv6."""
    family, packed = _packed(host)
    return (_hex(packed),) if family == socket.AF_INET6 else (_hex(packed), _hex(bytes(10) + b"\xff\xff" + packed))


def _packed(host: str) -> tuple[int, bytes]:
    """The family and the bytes of an address. An IPv4 address in the form of IPv6 counts as IPv4."""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return socket.AF_INET6, found.packed
        found = found.ipv4_mapped
    return socket.AF_INET, found.packed


def _hex(packed: bytes) -> str:
    # The kernel prints each four bytes as a number of this machine.
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", packed))
