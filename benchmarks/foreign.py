"""Foreign workers through a pool, beside a plain client of grpcio and the same workers, in turns.

The workers are those of the tests: Google's gRPC, and the habits of the Elixir system's Python workers. For each call,
or for each session, they ask the host for things. The plain client has a host too, which answers each request at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import trio

import snakepit_trio as snakepit
from tests.helpers.google_peer import stubs

Contract = Literal["0.4", "0.13"]
CONTRACTS: Final[tuple[Contract, ...]] = ("0.4", "0.13")
CALLERS: Final = (1, 64)
#: How many sessions the calls have, in turn.
SESSIONS: Final = {"no session": 0, "one session": 1, "100 sessions": 100}
_WORKER: Final = Path(stubs.__file__).with_name("worker.py")
_WORKERS: Final = 2
_AT_ONCE: Final = 32  # calls of one worker; it has as many threads
_TURNS: Final = 4
_CALLS: Final = 10_000
_ARGS: Final = {"a": 1, "b": 2}


async def measure(scale: float) -> dict[str, float]:
    """The rates of a pool as multiples of a plain client's, by contract, sessions and callers; and 10,000 calls."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        stubs.generate(Path(folder))
        for contract in CONTRACTS:
            async with _open_pool(contract, folder) as pool:
                with _Plain.opened(contract, folder) as plain:
                    for (name, sessions), callers in itertools.product(SESSIONS.items(), CALLERS):
                        ratio = await _compare(pool, plain, sessions, callers, seconds=2 * scale)
                        figures[f"{contract}, {name}, {callers}"] = ratio
        figures |= await _many_calls(folder, int(_CALLS * scale))
    return figures


async def _many_calls(folder: str, calls: int) -> dict[str, float]:
    """Whether a worker that keeps a heartbeat for each session that it meets becomes slow."""
    async with _open_pool("0.13", folder, workers=1) as pool:
        await _time_of(pool, calls // 10)
        times = [await _time_of(pool, calls // 10) for _ in range(10)]
        _, most = await pool.execute("heartbeats")
    return {"last of 10,000, x first": times[0] / times[-1], "heartbeats": float(most)}


async def _time_of(pool: snakepit.Pool, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await pool.execute("add", _ARGS)
    return time.perf_counter() - began


async def _compare(pool: snakepit.Pool, plain: _Plain, sessions: int, callers: int, seconds: float) -> float:
    ratios = []
    for turn in range(_TURNS + 1):
        ours = await _rate_of_pool(pool, sessions, callers, seconds)
        theirs = await trio.to_thread.run_sync(plain.rate, sessions, callers, seconds)
        if turn:  # in the first one, workers meet the sessions
            ratios.append(ours / theirs)
    return statistics.median(ratios)


# Through a pool


@asynccontextmanager
async def _open_pool(contract: Contract, folder: str, workers: int = _WORKERS) -> AsyncIterator[snakepit.Pool]:
    adapter = snakepit.GrpcBridge(script=_WORKER, contract=contract, args=["--contract", contract])
    env = {"GOOGLE_STUBS": folder}
    async with snakepit.open_pool(adapter, workers=workers, concurrency=_AT_ONCE, env=env) as pool:
        yield pool


async def _rate_of_pool(pool: snakepit.Pool, sessions: int, callers: int, seconds: float) -> float:
    names = _names(sessions)
    done, until = 0, time.perf_counter() + seconds

    async def call_on() -> None:
        nonlocal done
        while time.perf_counter() < until:
            name = next(names)
            assert await pool.execute("add", _ARGS, session=name or None) == 3
            done += 1

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(call_on)
    return done / (time.perf_counter() - began)


def _names(sessions: int) -> Iterator[str]:
    return itertools.cycle([f"s{number}" for number in range(sessions)] or [""])


# The plain client


class _Plain:
    """A client of grpcio for two workers, each session with one of them, and the workers' host."""

    def __init__(self, messages: Any, calls: list[Callable[..., Any]]) -> None:
        self._messages = messages
        self._calls = calls
        self._turns = itertools.count()

    @classmethod
    @contextmanager
    def opened(cls, contract: Contract, folder: str) -> Iterator[_Plain]:
        """Start the host and the workers; end them at the end."""
        import grpc

        messages, services = stubs.load(Path(folder))
        with contextlib.ExitStack() as stack:
            host = grpc.server(ThreadPoolExecutor(_AT_ONCE))
            services.add_BridgeServiceServicer_to_server(_host(messages, services), host)
            address = f"127.0.0.1:{host.add_insecure_port('127.0.0.1:0')}"
            host.start()
            stack.callback(lambda: host.stop(None).wait())
            calls = []
            for number in range(_WORKERS):
                port = stack.enter_context(_worker(contract, folder, address, number))
                channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
                calls.append(services.BridgeServiceStub(channel).ExecuteTool)
            yield cls(messages, calls)

    def rate(self, sessions: int, callers: int, seconds: float) -> float:
        """Calls a second, of so many callers together."""
        names = _names(sessions)
        until = time.perf_counter() + seconds
        done = [0] * callers

        def call_on(caller: int) -> None:
            while time.perf_counter() < until:
                assert self._call(next(names)) == b"3"
                done[caller] += 1

        began = time.perf_counter()
        threads = [threading.Thread(target=call_on, args=[caller]) for caller in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - began)

    def _call(self, session: str) -> bytes:
        request = self._messages.ExecuteToolRequest(session_id=session or "plain", tool_name="add")
        for name, value in _ARGS.items():
            request.parameters[name].type_url = "type.googleapis.com/google.protobuf.StringValue"
            request.parameters[name].value = b"%d" % value
        turn = int(session[1:]) if session else next(self._turns)
        answer = self._calls[turn % len(self._calls)](request, timeout=30)
        assert answer.success, answer.error_message
        found: bytes = answer.result.value
        return found


@contextmanager
def _worker(contract: Contract, folder: str, host: str, number: int) -> Iterator[int]:
    """A worker process; gives its port."""
    ready = Path(folder) / f"ready{contract}-{number}"
    command = [sys.executable, str(_WORKER), "--contract", contract, "--elixir-address", host]
    environment = {**os.environ, "GOOGLE_STUBS": folder, "SNAKEPIT_READY_FILE": str(ready)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if contract == "0.4":
                yield int(process.stdout.readline().removeprefix("GRPC_READY:"))
            else:
                while not ready.exists():
                    time.sleep(0.02)
                yield int(ready.read_text())
        finally:
            process.kill()


def _host(messages: Any, services: Any) -> Any:
    class Host(services.BridgeServiceServicer):  # type: ignore[misc]  # generated, without types
        def Ping(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - as the RPCs
            return messages.PingResponse(message="host")

        def InitializeSession(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - as above
            return messages.InitializeSessionResponse(success=True)

        def GetExposedElixirTools(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - as above
            return messages.GetExposedElixirToolsResponse()

        def RegisterTools(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - as above
            return messages.RegisterToolsResponse(success=True)

        def Heartbeat(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - as above
            return messages.HeartbeatResponse(session_valid=True)

    return Host()
