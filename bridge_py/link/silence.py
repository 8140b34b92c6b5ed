"""Notices that the other machine of a link is gone, although nothing says so: no FIN comes from a cut network.

The kernel knows when it has last heard from the other machine, whether or not this process has read anything since. It
answers for the other process too: a busy tool that holds the GIL, or a host whose loop is blocked, still acknowledges
what comes. So a watch asks the kernel, a few times in each period. Keepalive probes see to it that there is something
to hear when nobody has anything to say.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

SHORTEST: Final = 3.0  # seconds: probes go out once a second at the most
LONGEST: Final = 600.0  # seconds: whoever sends few pings has cut networks noticed all the same
FROZEN: Final = 15  # periods in which the other machine answers, and its process says nothing
_LOOKS: Final = 4  # in each period
_KERNEL: Final = 1.5  # periods after which the kernel closes the connection by itself
_SOON: Final = 0.01  # seconds
_LAST_DATA_RECEIVED: Final = struct.Struct("=52xI")  # of the kernel's struct tcp_info; in milliseconds
_LAST_ACK_RECEIVED: Final = struct.Struct("=56xI")
_TCP_INFO_BYTES: Final = 60
_FIONREAD: Final = 0x541B


def prepare(connection: Any, seconds: float) -> None:
    """Have the kernel probe the other end of a TCP connection, so that something comes within `seconds`.

    Small messages leave at once. The kernel itself gives up later: a watch can say why.
    """
    each = max(1, int(seconds / _LOOKS))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, each)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, each)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * _KERNEL * 1000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class SilenceWatch:
    """Calls `on_silence`, once, with the reason in words, when nothing has come for `seconds`.

    It watches one TCP connection, until `close`, in a timer of the running asyncio loop. What counts is what has come
    to this machine: data, or an acknowledgement. A process at the other end that is stopped, or whose machine is a
    relay that answers for it, gets `frozen` seconds, or fifteen times as long. This ends by itself when the connection
    is closed.
    """

    def __init__(
        self, connection: Any, seconds: float, on_silence: Callable[[str], None], frozen: float | None = None
    ) -> None:
        prepare(connection, seconds)
        self._connection = connection
        self._seconds = seconds
        self._frozen = FROZEN * seconds if frozen is None else frozen
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds / _LOOKS, self._look)

    def close(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _look(self) -> None:
        try:
            data, anything = last_heard(self._connection)
            why = self._why_silent(data, anything)
        except OSError:
            return  # it is closed, which says more than silence
        if why is not None:
            self._on_silence(why)
            return
        # The host counts on it that a worker ends when its period has ended, and not at a look some time later.
        left = self._seconds - anything + _SOON
        self._timer = self._loop.call_later(min(self._seconds / _LOOKS, left), self._look)

    def _why_silent(self, data: float, anything: float) -> str | None:
        if anything > self._seconds:
            return f"nothing has come from the other machine for {anything:.1f} s"
        if data > self._frozen and not has_unread(self._connection):
            return f"the other process has said nothing for {data:.0f} s, although its machine answers"
        return None


def last_heard(connection: Any) -> tuple[float, float]:
    """Seconds since data came on a TCP connection, and seconds since anything came. Raises `OSError`."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (data,), (acknowledged,) = _LAST_DATA_RECEIVED.unpack_from(info), _LAST_ACK_RECEIVED.unpack_from(info)
    return data / 1000, min(data, acknowledged) / 1000


def has_unread(connection: Any) -> bool:
    """Whether data has come on a connection that nobody has read. Raises `OSError`."""
    (waiting,) = struct.unpack("=i", fcntl.ioctl(connection.fileno(), _FIONREAD, b"\0" * 4))
    return bool(waiting)
