"""The host's side of the process that speaks with a Ray cluster: see `ray_process`.

There is one such process for each pool. It owns the actors, so Ray ends them when it has ended, in whatever way.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import attrs
import msgspec
import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Output
from snakepit_trio._connections.output import log_lines
from snakepit_trio._connections.worker_logs import WorkerLogs
from snakepit_trio._processes.children import script
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery, told

from . import ray_process
from .agent import Ended, Look, Order
from .kept_process import KeptProcess
from .place import Place
from .process import spawn
from .remote import AgentLost

_POLL: Final = 10.0  # seconds for which an actor's thread waits
_JOIN: Final = 10.0  # seconds to join the cluster, beyond `start_timeout`: Ray takes a second or two
_PLACE: Final = 3.5  # seconds until the actor has started its worker, beyond `start_timeout`
_ANSWER: Final = 1.0  # seconds for what the cluster has, which only makes a message better
_CLOSE: Final = 3.0  # seconds for the end of a worker; then its actor is killed, and the keeper ends the worker
_LAST_WORDS: Final = 0.5
_LONGEST_CLOSE: Final = 10.0  # seconds that workers get to be released when their pool closes
_LONGEST_END: Final = 4.0  # seconds that Ray gets to end the actors and to leave the cluster
_FIRST_PAUSE: Final = 0.5  # seconds between the end of a driver and the start of the next
_LONGEST_PAUSE: Final = 10.0

logger = get_logger("snakepit.ray")


class RayAgent:
    """What stands beside one worker on a node: an actor of Ray. It is an `Agent`, see `remote`."""

    def __init__(self, driver: _Driver, id: int, held: Held) -> None:
        self.node = ""
        self.pid = 0
        self.address = ("", 0)
        self._driver = driver
        self._id = id
        self._held = held
        held.add(self)

    async def start(self, version: str, order: Order, options: Mapping[str, Any]) -> None:
        """Have Ray place the actor, and the actor start the worker. Raises `OSError` if it cannot."""
        try:
            started = await self._driver.ask(
                op="launch", id=self._id, version=version, order=pickle.dumps(order), options=options
            )
        except AgentLost as lost:
            raise OSError(_with_remedy(str(lost))) from None
        if "error" in started:
            raise OSError(started["error"])
        host, port = started["address"]
        self.node, self.pid, self.address = started["node"], started["pid"], (host, port)

    async def signal(self, number: int) -> None:
        """Send a signal to the worker and the descendants in its group."""
        await self._call("signal", int(number))

    async def wait(self) -> Ended:
        """Wait until the worker and all that it has started have ended."""
        while (ended := await self._call("wait", _POLL)) is None:
            pass
        return Ended(**ended)

    async def look(self) -> Look:
        """Look at the worker."""
        return Look(**await self._call("look"))

    async def read_output(self, *, is_stderr: bool) -> bytes:
        """The next bytes that the worker has printed; empty at the end."""
        while (data := await self._call("read_output", _POLL, is_stderr)) is None:
            pass
        return bytes(data)

    async def release(self) -> None:
        """End the worker and the actor. Takes a few seconds at the most."""
        try:
            with trio.move_on_after(_CLOSE):
                await self._call("close")
        except AgentLost:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """Have Ray end the actor, whether it is placed already or not. The keeper then ends the worker."""
        self._driver.tell(op="end", id=self._id)
        self._held.discard(self)

    async def _call(self, method: str, *args: Any) -> Any:
        return await self._driver.ask(op="call", id=self._id, method=method, args=args)


class Held:
    """The agents of a pool that have not been released."""

    def __init__(self) -> None:
        self._agents: set[RayAgent] = set()
        self._none = trio.Event()
        self._none.set()

    def add(self, agent: RayAgent) -> None:
        """Note a new agent."""
        self._agents.add(agent)
        self._none = trio.Event()

    def discard(self, agent: RayAgent) -> None:
        """Note that an agent has been released."""
        self._agents.discard(agent)
        if not self._agents:
            self._none.set()

    async def until_none(self) -> None:
        """Wait until all have been released."""
        await self._none.wait()


class _Answer:
    """The answer to one request, when it comes."""

    def __init__(self) -> None:
        self.come = trio.Event()
        self.value: Any = None
        self.error: str | None = None

    def set(self, value: Any = None, error: str | None = None) -> None:
        self.value, self.error = value, error
        self.come.set()


class _Driver:
    """One driver process, from its start to its end. `problem` says why it is over."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.settled = trio.Event()  # it has joined the cluster, or is over
        self.is_ready = False
        self.problem = ""
        self.tail: deque[str] = deque(maxlen=20)
        self._name = name
        self._settings = settings
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Answer] = {}
        self._send, self._to_send = trio.open_memory_channel[bytes](math.inf)
        self._logs = WorkerLogs(name, logger, self.tail)

    async def live(self, place: Place, registry: ProcessRegistry) -> None:
        """Run the process until it ends. If cancelled, ends it first, and Ray ends what is left of its actors."""
        try:
            async with self._started(place, registry) as (process, stream):
                await self._converse(process, stream)
        except Exception as error:
            self._end(f"the process that speaks with Ray could not be run: {told(error)}")
        finally:
            said = "; ".join(list(self.tail)[-1:])
            self._end(f"the process that speaks with Ray has ended{said and ': '}{said}")

    @contextlib.asynccontextmanager
    async def _started(
        self, place: Place, registry: ProcessRegistry
    ) -> AsyncIterator[tuple[KeptProcess, trio.SocketStream]]:
        key = registry.reserve(self._name)
        with contextlib.ExitStack() as undo:
            undo.callback(registry.forget, key)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            with contextlib.closing(theirs), _file(self._settings) as settings:
                given = [theirs.fileno(), settings]
                command = [place.python, "-P", script(ray_process.__file__), *map(str, given)]
                process = await spawn(place, registry, key, command, {}, _same, pass_fds=given)
            try:
                yield process, stream
            finally:
                with trio.CancelScope(shield=True):
                    await self._leave(process, stream)  # noqa: ASYNC102 - bounded in there

    async def _leave(self, process: KeptProcess, stream: trio.SocketStream) -> None:
        await stream.aclose()
        with trio.move_on_after(_LONGEST_END):
            await process.wait()
        await process.end_now()

    async def _converse(self, process: KeptProcess, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            for pipe in (process.pipes.stdout, process.pipes.stderr):
                # Ray's own messages are for those who look for them. Those of both streams count as last words.
                nursery.start_soon(log_lines, Output(pipe, logging.DEBUG, True), self._logs)
            nursery.start_soon(self._write, stream)
            await self._read(stream)
            with trio.move_on_after(_LONGEST_END):
                await process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS

    async def _write(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self._to_send:
                await stream.send_all(data)

    async def _read(self, stream: trio.SocketStream) -> None:
        rest = bytearray()
        head = ray_process.LENGTH
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in stream:
                rest += data
                while len(rest) >= head and len(rest) >= (end := head + int.from_bytes(rest[:head], "big")):
                    self._hear(**msgspec.msgpack.decode(bytes(rest[head:end])))
                    del rest[:end]

    def _hear(self, number: int, value: Any = None, error: str | None = None) -> None:
        if number and number in self._asked:
            self._asked[number].set(value, error)
        elif not number and error is not None:
            self._end(error)
        elif not number:
            self.is_ready = True
            self.settled.set()

    def _end(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.settled.set()
        for answer in self._asked.values():
            answer.set(error=self.problem)

    def agent(self, held: Held) -> RayAgent:
        """The agent of a new worker."""
        return RayAgent(self, next(self._numbers), held)

    async def ask(self, **request: Any) -> Any:
        """Make a request, and return its answer. Raises `AgentLost` if there is none, or if it is an error."""
        number = next(self._numbers)
        answer = self._asked[number] = _Answer()
        try:
            if self.problem:
                raise AgentLost(self.problem)
            self.tell(number=number, **request)
            await answer.come.wait()
        finally:
            del self._asked[number]
        if answer.error is not None:
            raise AgentLost(answer.error)
        return answer.value

    def tell(self, **request: Any) -> None:
        """Make a request that has no answer. If the process is gone, it does not arrive."""
        self._send.send_nowait(ray_process.pack(request))


class RayDriver:
    """Keeps a driver for a pool: starts another one when it has ended. `timeout` is the pool's `start_timeout`."""

    def __init__(self, place: Place, registry: ProcessRegistry, settings: Mapping[str, Any], timeout: float) -> None:
        self._place = place
        self._registry = registry
        self._settings = settings
        self._timeout = timeout
        self._current = self._new()
        self._held = Held()

    def _new(self) -> _Driver:
        return _Driver(f"{self._place.config.name}/ray", self._settings)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have a driver until cancelled. Raises `UsageError` if the first one cannot join the cluster in time."""
        async with background_nursery() as nursery:
            keeping = trio.CancelScope(shield=True)
            nursery.start_soon(self._keep, keeping)
            try:
                await self._join()
                task_status.started()
                await trio.sleep_forever()
            finally:
                # A pool that is cancelled ends its services and its workers at the same time, and these need this one.
                with trio.move_on_after(_LONGEST_CLOSE, shield=True):
                    await self._held.until_none()  # noqa: ASYNC102 - bounded
                keeping.cancel()

    async def _keep(self, keeping: trio.CancelScope) -> None:
        with keeping:
            await self._keep_on()

    async def _keep_on(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._current.live(self._place, self._registry)
            if self._current.is_ready:
                pause = _FIRST_PAUSE
            logger.warning("%s; it is started again in %.1f s", self._current.problem, pause)
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._current = self._new()

    async def _join(self) -> None:
        first = self._current
        with trio.move_on_after(self._timeout + _JOIN):
            await first.settled.wait()
        if not first.is_ready:
            said = first.problem or "; ".join([*first.tail][-1:]) or "it does not answer"
            raise UsageError(
                f"no Ray cluster can be joined at {self._settings['address']!r}: {said}. Start one by `ray start"
                " --head`, or give Ray(address=) the address of a cluster that this machine is part of"
            )

    async def launch(self, version: str, order: Order, options: Mapping[str, Any]) -> RayAgent:
        """Start a worker on a node. Raises `OSError` if it cannot be started in time. If cancelled, leaves no actor."""
        with trio.move_on_after(self._timeout + _PLACE):
            await self._current.settled.wait()
            agent = self._current.agent(self._held)
            try:
                await agent.start(version, order, options)
            except BaseException:
                agent.kill()
                raise
            return agent
        raise TimeoutError(await self._why_late(options))

    async def _why_late(self, options: Mapping[str, Any]) -> str:
        wanted = amounts_of(options)
        has: dict[str, float] = {}
        free: dict[str, float] = {}
        with contextlib.suppress(AgentLost), trio.move_on_after(_ANSWER):
            has, free = await self._current.ask(op="cluster")
        asked = ", ".join(f"{name}: {amount:g}" for name, amount in wanted.items()) or "nothing"
        there = f"the cluster has {_shown(wanted, has, free)}" if has else "the cluster does not answer"
        return (
            f"Ray has started no actor for it within {self._timeout + _PLACE:g} s. It needs {asked}; {there}. Add"
            " nodes, ask for less by Ray(resources=), or give a longer start_timeout= if nodes, or a runtime_env, take"
            " their time"
        )


def amounts_of(options: Mapping[str, Any]) -> dict[str, float]:
    """The resources in the options of an actor, by the names that Ray shows."""
    found = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    return {name: amount for name, amount in {**found, **options.get("resources", {})}.items() if amount}


def _shown(wanted: Mapping[str, float], has: Mapping[str, float], free: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name}: {has[name]:g} ({free.get(name, 0):g} free)" if name in has else f"no {name}" for name in wanted
    )


def _with_remedy(problem: str) -> str:
    if "No module named" not in problem:
        return problem
    return (
        f"{problem}: its node lacks that. Install snakepit-trio on all nodes, or name it in"
        " Ray(runtime_env={'pip': ['snakepit-trio']})"
    )


def place_of_driver(config: PoolConfig) -> Place:
    """The place where a driver starts: here, and without what the pool's settings say about workers."""
    return Place.of(attrs.evolve(config, python=sys.executable, cwd=None, env=None, per_worker=None, umask=None))


@contextlib.contextmanager
def _file(settings: Mapping[str, Any]) -> Iterator[int]:
    """A file in memory: a runtime_env may have passwords, which belong in no command line."""
    descriptor = os.memfd_create("snakepit-ray")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(settings))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _same(process: KeptProcess) -> KeptProcess:
    return process
