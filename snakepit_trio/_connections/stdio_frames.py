"""Frames on a worker's stdin and stdout: a length of four bytes, big-endian, and the bytes of the adapter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import trio

from bridge_py.wire.errors import EncodeError, RemoteProtocolError
from snakepit_trio._config.stdio_adapters import StdioJson

from .link import LinkLost

_HEADER: Final = 4
_LONGEST: Final = (1 << 32) - 1  # the largest size that a header can tell
_LOOKS_LIKE_TEXT: Final = 0x20202020
_LAST_WORDS: Final = 0.5  # seconds between the end of a dying worker's stdin and the end of its stdout


class _Outgoing(NamedTuple):
    """A frame that waits to be written: a call, the answer to an ask, or neither."""

    data: bytes
    call_id: int = 0
    ask: int | None = None


class StdioFrames:
    """The frames of one worker. `answered` is called with the number of an ask whose answer has been written."""

    def __init__(
        self,
        adapter: StdioJson,
        max_frame: int,
        stdin: trio.abc.SendStream,
        stdout: trio.abc.ReceiveStream,
        answered: Callable[[int], None],
    ) -> None:
        self.last_sent = 0  # id of the last call that the worker may have got
        self._adapter = adapter
        self._max_frame = min(max_frame, _LONGEST)
        self._stdin = stdin
        self._stdout = stdout
        self._answered = answered
        self._queue: deque[_Outgoing] = deque()
        self._to_write = trio.Event()
        self._is_ending = False
        self._buffer = bytearray()

    def send(self, frame: dict[str, Any], *, call_id: int = 0, ask: int | None = None) -> None:
        """Have a frame written. Raises `EncodeError`, and the errors of the adapter."""
        data = self._adapter.encode(frame)
        if len(data) > self._max_frame:
            raise EncodeError(f"{len(data)} bytes; a frame takes {self._max_frame} (max_frame_bytes)")
        self._queue.append(_Outgoing(len(data).to_bytes(_HEADER, "big") + data, call_id, ask))
        self._to_write.set()

    def withdraw(self, call_id: int) -> bool:
        """Take back the frame of a call. Returns False if it is on its way."""
        for outgoing in self._queue:
            if outgoing.call_id == call_id:
                self._queue.remove(outgoing)
                return True
        return False

    def end(self) -> None:
        """Close stdin when all frames are written."""
        self._is_ending = True
        self._to_write.set()

    async def write(self) -> None:
        """Write the frames, until `end`. Raises `LinkLost` some time after the worker has closed its stdin."""
        if not await self._write_all():
            # The worker is usually dying, and may have sent more before that.
            await trio.sleep(_LAST_WORDS)
            raise LinkLost("the worker closed its stdin")

    async def _write_all(self) -> bool:
        try:
            while self._queue or not self._is_ending:
                await self._to_write.wait()
                self._to_write = trio.Event()
                while self._queue:
                    await self._write_one(self._queue.popleft())
            await self._stdin.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def _write_one(self, outgoing: _Outgoing) -> None:
        before, self.last_sent = self.last_sent, outgoing.call_id or self.last_sent
        try:
            await self._stdin.send_all(outgoing.data)
        except trio.BrokenResourceError:
            # The last byte of the frame never came through, so the worker cannot have started the call.
            self.last_sent = before
            raise
        if outgoing.ask is not None:
            self._answered(outgoing.ask)

    async def receive(self) -> dict[str, Any]:
        """The next frame. Raises `LinkLost` when none will come, and `RemoteProtocolError`."""
        header = await self._take(_HEADER)
        size = int.from_bytes(header, "big")
        if size > self._max_frame:
            raise RemoteProtocolError(_too_large(size, header, self._max_frame))
        data = await self._take(size)
        try:
            return self._adapter.decode(data)
        except Exception as error:
            raise RemoteProtocolError(str(error)) from error

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                data = await self._stdout.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise LinkLost("the worker's stdout was lost") from error
            if not data:
                raise LinkLost("the worker closed its stdout")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _too_large(size: int, header: bytes, limit: int) -> str:
    hint = f": it begins with {header!r}; was text printed to stdout?" if size >= _LOOKS_LIKE_TEXT else ""
    return f"a frame of {size} bytes is over the limit of {limit} bytes{hint}"
