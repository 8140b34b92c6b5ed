"""A process that speaks with a Ray cluster, for the host of one pool. Run as a script, by `python -P`.

Ray's own threads, signal handlers and messages stay in here, and so do the abrupt ends of programs whose cluster is
gone. The process owns the actors: when it ends, in whatever way, Ray ends them, and the keepers end the workers. It
ends when its host closes the socket.

Both sides write frames: four bytes of length, and a message in MessagePack. A request of the host has a `number`, and
says what to do, `op`. The answer has the same number, and a `value` or an `error`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable
from typing import Any, Final, NoReturn

if __name__ == "__main__":  # it finds what its host finds
    sys.path[:0] = json.loads(os.environ.pop("SNAKEPIT_SYS_PATH", "[]"))

import msgspec

from snakepit_trio.launchers.ray_actor import MOST_CALLS, SnakepitWorker

LENGTH: Final = 4  # bytes
_LONGEST_END: Final = 3.0  # seconds that Ray gets to leave the cluster
_LONGEST_ERROR: Final = 2000  # characters
_NOISE: Final = ("class_name:", "actor_id:", "namespace:", "pid:", "ip:")


class Driver:
    """Has Ray make actors for a host, and passes calls of the actors on."""

    def __init__(self, ray: Any, host: asyncio.StreamWriter) -> None:
        self._ray = ray
        self._host = host
        self._remote = ray.remote(SnakepitWorker)
        self._actors: dict[int, Any] = {}
        self._tasks: set[asyncio.Future[Any]] = set()

    def obey(self, request: dict[str, Any]) -> None:
        """Do what a request says, in a task of its own."""
        number, op = request.pop("number", 0), request.pop("op")
        task = asyncio.ensure_future(self._answer(number, getattr(self, f"_{op}")(**request)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, work: Awaitable[Any]) -> None:
        try:
            answer = {"number": number, "value": await work}
        except Exception as error:
            answer = {"number": number, "error": in_short(error)}
        if number:
            self._host.write(pack(answer))

    async def _launch(self, id: int, version: str, order: bytes, options: dict[str, Any]) -> Any:
        actor = self._actors[id] = self._remote.options(max_concurrency=MOST_CALLS, max_restarts=0, **options).remote()
        return await actor.start.remote(version, order)

    async def _call(self, id: int, method: str, args: list[Any]) -> Any:
        if id not in self._actors:
            raise LookupError("its actor has been ended")
        return await getattr(self._actors[id], method).remote(*args)

    async def _end(self, id: int) -> None:
        """End an actor, whether it is placed already or not."""
        if (actor := self._actors.pop(id, None)) is not None:
            # In a thread: Ray's answer may take long while its head is away.
            await asyncio.to_thread(self._ray.kill, actor, no_restart=True)

    async def _cluster(self) -> Any:
        """What the cluster has, and how much of it is free."""
        return await asyncio.to_thread(lambda: (self._ray.cluster_resources(), self._ray.available_resources()))


def in_short(error: BaseException) -> str:
    """What an error of Ray says, in one line, without the actor's ids. Of a traceback, that is its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_NOISE)]
    for at, line in enumerate(said):
        if line.startswith("Traceback (") or "File " in line[:6]:
            said = [*said[:at], said[-1]]
            break
    return " ".join(said)[:_LONGEST_ERROR] or type(error).__name__


def pack(message: dict[str, Any]) -> bytes:
    """Make a frame of a message."""
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(LENGTH, "big") + data


async def _serve(host: socket.socket, ray: Any) -> None:
    reader, writer = await asyncio.open_connection(sock=host)
    driver = Driver(ray, writer)
    writer.write(pack({"number": 0, "value": None}))
    try:
        while True:
            length = int.from_bytes(await reader.readexactly(LENGTH), "big")
            driver.obey(msgspec.msgpack.decode(await reader.readexactly(length)))
    except (asyncio.IncompleteReadError, OSError):
        async with asyncio.timeout(_LONGEST_END):
            await asyncio.to_thread(ray.shutdown)


def main(arguments: list[str]) -> None:
    """Join a cluster, and serve the host until it goes. The settings for Ray come from a file in memory."""
    descriptor, settings = map(int, arguments)
    host = socket.socket(fileno=descriptor)
    with open(settings, "rb") as file:
        joining = msgspec.msgpack.decode(file.read())
    try:
        import ray

        ray.init(**joining, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        host.sendall(pack({"number": 0, "error": f"{type(error).__name__}: {in_short(error)}"}))
        return
    host.setblocking(False)
    asyncio.run(_serve(host, ray))


def _run() -> NoReturn:
    try:
        main(sys.argv[1:])
    except BaseException as error:  # noqa: ASYNC103 - the process ends below
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # Ray's threads are not waited for


if __name__ == "__main__":
    _run()
