"""The pools that are compared, behind one small interface.

Each peer runs on the event loop that its users would run it on. A peer is opened with a number of workers;
opening ends when every worker has answered a call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import logging
import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import trio

import snakepit_trio as snakepit
from snakepit_trio.launchers import Ray

from .grpc_server import UNBOUNDED
from .plain import empty, meet
from .ray_worker import RayWorker
from .tools import increase

Call = Callable[[], Awaitable[object]]
ADAPTER = "benchmarks.tools:Tools"
PAYLOAD = "x" * 100
CALLERS = 64
#: With the address "local", a cluster of its own, whatever else runs on this machine.
RAY_SETTINGS: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}


class Session:
    """An open peer.

    `call` runs the empty tool once, `stream` takes that many chunks, and `send` has an array increased, or a frame
    sent back. `pool` is our own.
    """

    def __init__(
        self,
        call: Call,
        stream: Callable[[int], Awaitable[None]] | None = None,
        send: Callable[[Any], Awaitable[Any]] | None = None,
        pool: snakepit.Pool | None = None,
    ) -> None:
        self.call = call
        self.stream = stream
        self.send = send
        self.pool = pool


class Peer(ABC):
    """One pool, and the loop it runs on."""

    name: ClassVar[str]

    @abstractmethod
    def open(self, workers: int) -> AbstractAsyncContextManager[Session]:
        """Open the pool for the time of a block. Every worker has answered a call when the block is entered."""

    @abstractmethod
    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function on the peer's loop."""

    @abstractmethod
    async def together(self, callers: list[Callable[[], Awaitable[None]]]) -> None:
        """Run callers side by side."""


async def repeat(session: Session, calls: int) -> None:
    """One caller: call after call."""
    for _ in range(calls):
        await session.call()


async def from_many(peer: Peer, session: Session, calls: int) -> None:
    """64 callers share a number of calls."""
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await session.call()

    await peer.together([caller] * CALLERS)


class OnTrio(Peer):
    """Peers on trio."""

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """`trio.run`."""
        return trio.run(main)

    async def together(self, callers: list[Callable[[], Awaitable[None]]]) -> None:
        """A nursery."""
        async with trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(caller)


class OnAsyncio(Peer):
    """Peers on asyncio."""

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """`asyncio.run`."""

        async def run() -> Any:
            return await main()

        return asyncio.run(run())

    async def together(self, callers: list[Callable[[], Awaitable[None]]]) -> None:
        """`asyncio.gather`."""
        await asyncio.gather(*(caller() for caller in callers))


class Ours(OnTrio):
    """snakepit-trio as it comes: a sync tool, one call at a time in each worker."""

    name = "snakepit-trio"
    tool = "empty"
    concurrency = 1
    launcher: snakepit.Launcher | None = None

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """The pool is open when all workers are ready."""
        arguments = {"payload": PAYLOAD}
        async with snakepit.open_pool(
            ADAPTER, workers=workers, concurrency=self.concurrency, launcher=self.launcher
        ) as pool:

            async def stream(n: int) -> None:
                async with pool.stream("count", {"n": n}) as chunks:
                    async for _ in chunks:
                        pass

            await pool.execute(self.tool, arguments)
            yield Session(
                lambda: pool.execute(self.tool, arguments),
                stream,
                lambda value: pool.execute("increase", {"value": value}),
                pool,
            )


class OursAsync(Ours):
    """snakepit-trio with a coroutine tool, 32 at a time in each worker."""

    name = "snakepit-trio, coroutine tool, concurrency 32"
    tool = "empty_async"
    concurrency = 32


class OursOnRay(Ours):
    """snakepit-trio with workers that Ray places, on this machine alone."""

    name = "snakepit-trio on Ray"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """Starts Ray too."""
        import ray

        ray.init("local", num_cpus=workers, **RAY_SETTINGS)
        self.launcher = Ray()
        try:
            async with super().open(workers) as session:
                yield session
        finally:
            ray.shutdown()


class TrioParallel(OnTrio):
    """trio-parallel, with a worker context of its own."""

    name = "trio-parallel"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """Workers start when all others are busy, so they are made to wait for each other."""
        import trio_parallel

        limiter = trio.CapacityLimiter(workers)
        async with trio_parallel.open_worker_context() as context:
            with tempfile.TemporaryDirectory() as folder:
                async with trio.open_nursery() as nursery:
                    for number in range(workers):
                        nursery.start_soon(_in_context, context, limiter, folder, number, workers)

            async def call() -> object:
                return await context.run_sync(empty, PAYLOAD, limiter=limiter)

            async def send(value: Any) -> Any:
                return await context.run_sync(increase, value, limiter=limiter)

            yield Session(call, send=send)


class Executor(OnAsyncio):
    """ProcessPoolExecutor with spawned processes, from asyncio."""

    name = "ProcessPoolExecutor"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """Workers start when calls are queued, so they are made to wait for each other."""
        loop = asyncio.get_running_loop()
        method = multiprocessing.get_context("spawn")
        with (
            concurrent.futures.ProcessPoolExecutor(workers, mp_context=method) as pool,
            tempfile.TemporaryDirectory() as folder,
        ):
            meeting = [loop.run_in_executor(pool, meet, folder, n, workers) for n in range(workers)]
            await asyncio.gather(*meeting)
            yield Session(
                lambda: loop.run_in_executor(pool, empty, PAYLOAD),
                send=lambda value: loop.run_in_executor(pool, increase, value),
            )


class Interpreters(OnAsyncio):
    """InterpreterPoolExecutor, of Python 3.14 and later: threads with an interpreter each, from asyncio."""

    name = "InterpreterPoolExecutor"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """Workers start when calls are queued, so they are made to wait for each other. numpy does not work there."""
        loop = asyncio.get_running_loop()
        make: Any = getattr(concurrent.futures, "InterpreterPoolExecutor")  # noqa: B009 - older Pythons have none
        with make(workers) as pool, tempfile.TemporaryDirectory() as folder:
            await asyncio.gather(*[loop.run_in_executor(pool, meet, folder, n, workers) for n in range(workers)])
            yield Session(lambda: loop.run_in_executor(pool, empty, PAYLOAD))


class Grpc(OnAsyncio):
    """grpc.aio: a server process and a channel for each worker, calls in turn."""

    name = "grpc.aio"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """Open when each server has answered."""
        import grpc.aio

        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder) / f"{number}") for number in range(workers)]
            command = [sys.executable, "-m", "benchmarks.grpc_server"]
            servers = [subprocess.Popen([*command, path]) for path in paths]  # noqa: ASYNC220 - it takes 2 ms
            channels = [grpc.aio.insecure_channel(f"unix:{path}", options=UNBOUNDED) for path in paths]
            try:
                yield await self._session(channels)
            finally:
                for channel in channels:
                    await channel.close()  # noqa: ASYNC102 - asyncio's own
                for server in servers:
                    server.kill()
                    server.wait()

    async def _session(self, channels: list[Any]) -> Session:
        payload = PAYLOAD.encode()
        methods = [channel.unary_unary("/bench.Bench/Empty") for channel in channels]
        await asyncio.gather(*(method(payload, wait_for_ready=True) for method in methods))
        turn = 0

        async def call() -> object:
            nonlocal turn
            turn = (turn + 1) % len(methods)
            return await methods[turn](payload)

        async def stream(n: int) -> None:
            async for _ in channels[0].unary_stream("/bench.Bench/Count")(b"%d" % n):
                pass

        async def send(value: Any) -> Any:
            import numpy as np

            if type(value).__name__ == "DataFrame":
                return pickle.loads(await channels[0].unary_unary("/bench.Bench/SendBack")(pickle.dumps(value, 5)))
            return np.frombuffer(await channels[0].unary_unary("/bench.Bench/Increase")(value.tobytes()))

        return Session(call, stream, send)


class RayActors(OnAsyncio):
    """Ray on this machine alone: an actor for each worker, calls in turn."""

    name = "Ray actors"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncIterator[Session]:
        """Starts Ray too. It is open when each actor has answered."""
        import ray

        ray.init("local", num_cpus=workers, **RAY_SETTINGS)
        try:
            yield await self._session([ray.remote(RayWorker).remote() for _ in range(workers)])
        finally:
            ray.shutdown()

    async def _session(self, actors: list[Any]) -> Session:
        await asyncio.gather(*(actor.empty.remote(PAYLOAD) for actor in actors))
        turn = 0

        async def call() -> object:
            nonlocal turn
            turn = (turn + 1) % len(actors)
            return await actors[turn].empty.remote(PAYLOAD)

        async def stream(n: int) -> None:
            async for chunk in actors[0].count.options(num_returns="streaming").remote(n):
                await chunk

        async def send(value: Any) -> Any:
            return await actors[0].increase.remote(value)

        return Session(call, stream, send)


PEERS: dict[str, Peer] = {peer.name: peer for peer in (Ours(), OursAsync(), TrioParallel(), Executor(), Grpc())}
if sys.version_info >= (3, 14):
    PEERS[Interpreters.name] = Interpreters()
if importlib.util.find_spec("ray") is not None:  # it has no wheels for the latest Pythons
    PEERS[RayActors.name] = RayActors()
    PEERS[OursOnRay.name] = OursOnRay()


async def _in_context(context: Any, limiter: trio.CapacityLimiter, folder: str, number: int, workers: int) -> None:
    await context.run_sync(meet, folder, number, workers, limiter=limiter)
