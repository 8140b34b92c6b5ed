"""The socket at which other processes of the same user look at a pool: `snakepit top`, `dump` and `ps`.

It is in the folder of the pool's run, which is closed to others, and goes with that folder. A client sends a question,
which is one line, and gets one JSON document. The pool does its work whatever happens here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import trio

from snakepit_trio._processes.registry import INSPECTION
from snakepit_trio._util.log import get_logger

_AT_ONCE: Final = 16  # clients; further ones wait in the kernel, and cost this process no descriptor
_BACKLOG: Final = 128
_LONGEST_QUESTION: Final = 256  # bytes
_ASK_WITHIN: Final = 1.0  # seconds
_READ_WITHIN: Final = 10.0
_LOOK_AGAIN: Final = 30.0
_NO_ROOM: Final = 1.0
_PEER: Final = struct.Struct("ii4x")  # pid and uid

logger = get_logger("snakepit.inspection")
Answers = Mapping[str, Callable[[], object]]


class Inspection:
    """Answers the questions of other processes. `folder` gives the folder of the run at the moment of asking."""

    def __init__(self, pool: str, folder: Callable[[], Path | None], answers: Answers) -> None:
        self._pool = pool
        self._folder = folder
        self._answers = answers
        self._places = trio.Semaphore(_AT_ONCE)
        self._has_warned = False

    async def run(self) -> None:
        """Serve until cancelled. If there is no room for the socket, it tries again from time to time."""
        while (folder := self._folder()) is not None:
            with logger.tolerates("serving `snakepit top`"):
                await self._serve(folder / INSPECTION)
            await trio.sleep(_NO_ROOM)

    async def _serve(self, path: Path) -> None:
        try:
            listener = _listen(path)
        except OSError as error:
            self._warn(error)
            await trio.sleep(_LOOK_AGAIN)
            return
        with listener:
            async with trio.open_nursery() as nursery:
                while _is_there(path):
                    with trio.move_on_after(_LOOK_AGAIN):
                        await self._accept(listener, nursery)
                nursery.cancel_scope.cancel()

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("`snakepit top` and `dump` cannot look at pool %r, which runs on: %s", self._pool, error)

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        await self._places.acquire()
        try:
            client, _ = await listener.accept()
        except OSError:  # no descriptor is free, or the client has left
            self._places.release()
            await trio.sleep(_NO_ROOM)
        except BaseException:
            self._places.release()
            raise
        else:
            nursery.start_soon(self._serve_one, client)

    async def _serve_one(self, client: trio.socket.SocketType) -> None:
        try:
            with client, logger.tolerates("answering `snakepit top`"), contextlib.suppress(OSError):
                if _is_ours(client):
                    await self._answer(client)
        finally:
            self._places.release()

    async def _answer(self, client: trio.socket.SocketType) -> None:
        question = None
        with trio.move_on_after(_ASK_WITHIN):
            question = await _read_line(client)
        if question is not None:
            data = msgspec.json.encode(self._answer_to(question))
            with trio.move_on_after(_READ_WITHIN):
                await _send(client, data)

    def _answer_to(self, question: str) -> object:
        answer = self._answers.get(question)
        if answer is None:
            return {"error": f"this pool answers no such question; it answers: {', '.join(self._answers)}"}
        return answer()


def _listen(path: Path) -> trio.socket.SocketType:
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)  # left by a listener that failed
        listener.bind(str(path))
        path.chmod(0o600)  # whatever the umask is
        listener.listen(_BACKLOG)
        return trio.socket.from_stdlib_socket(listener)
    except BaseException:
        listener.close()
        raise


def _is_there(path: Path) -> bool:
    # A program that cleans up temporary files may remove it; the pool then makes its folder again.
    return path.exists()


def _is_ours(client: trio.socket.SocketType) -> bool:
    pid, uid = _PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    is_ours: bool = uid == os.getuid()
    if not is_ours:
        logger.warning("process %d of uid %d may not look at this pool, and is refused", pid, uid)
    return is_ours


async def _read_line(client: trio.socket.SocketType) -> str | None:
    """The client's question; None if it sends none, or one that is too long."""
    line = b""
    while b"\n" not in line and len(line) <= _LONGEST_QUESTION:
        data = await client.recv(_LONGEST_QUESTION)
        if not data:
            return None
        line += data
    question, end, _ = line.partition(b"\n")
    return question.decode("utf-8", "replace") if end else None


async def _send(client: trio.socket.SocketType, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[await client.send(left) :]
