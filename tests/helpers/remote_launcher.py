"""A launcher of workers that stand beside agents, as on other machines: here, or in a network namespace."""

from __future__ import annotations

import base64
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio.launchers.agent import Ended, Look, Order
from snakepit_trio.launchers.authority import Authority, Issuer
from snakepit_trio.launchers.remote import AgentLost, RemoteProcess, check_remote, order_of

from .namespaces import Machine


class ProcessAgent:
    """The host's side of an agent that is a process. `is_cut` plays that its answers are lost on the way."""

    def __init__(self, process: trio.Process, node: str) -> None:
        self.node = node
        self.pid = 0
        self.address = ("", 0)
        self.process = process
        self.is_cut = False
        self._answers: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._number = 0
        self._is_lost = False
        self._sending = trio.Lock()
        self._reading = trio.CancelScope(shield=True)  # its site may be cancelled before its worker has ended

    async def start(self, order: Order) -> None:
        """Have the worker started. Raises `OSError`."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(base64.b64encode(pickle.dumps(order)) + b"\n")
        told = await self._until_answered(0)
        if "error" in told:
            raise OSError(told["error"])
        self.pid, self.address = told["pid"], tuple(told["address"])

    async def read_answers(self) -> None:
        """Read what the agent says until it ends."""
        assert self.process.stdout is not None
        rest = b""
        with self._reading:
            async with self.process.stdout:
                async for data in self.process.stdout:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._hear(*json.loads(line))
        self._is_lost = True
        for event, _ in self._answers.values():
            event.set()

    def _hear(self, number: int, content: Any) -> None:
        if not self.is_cut:
            event, box = self._answers.setdefault(number, (trio.Event(), []))
            box.append(content)
            event.set()

    async def signal(self, number: int) -> None:
        await self._ask("signal", int(number))

    async def wait(self) -> Ended:
        return Ended(**await self._ask("wait"))

    async def look(self) -> Look:
        return Look(**await self._ask("look"))

    async def read_output(self, *, is_stderr: bool) -> bytes:
        return base64.b64decode(await self._ask("read", is_stderr))

    async def release(self) -> None:
        if self.is_cut:
            self._reading.cancel()  # nothing reaches it; the test ends it
        else:
            await self.end()

    async def end(self) -> None:
        """End the agent, and with it the worker."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        with trio.move_on_after(5):
            await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def _ask(self, what: str, argument: Any = None) -> Any:
        self._number += 1
        number = self._number
        assert self.process.stdin is not None
        if self.is_cut:
            await trio.sleep_forever()
        if self._is_lost:
            raise AgentLost("its process has ended")
        try:
            async with self._sending:
                await self.process.stdin.send_all(json.dumps([number, what, argument]).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise AgentLost("its process has ended") from None
        return await self._until_answered(number)

    async def _until_answered(self, number: int) -> Any:
        event, box = self._answers.setdefault(number, (trio.Event(), []))
        await event.wait()
        del self._answers[number]
        if not box:
            raise AgentLost("its process has ended")
        return box[0]


#: What a test does to a worker that has started, before its host dials it.
Before = Callable[[ProcessAgent, Order], Awaitable[None]]


@attrs.frozen
class Here:
    """This machine, as a place for agents."""

    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


class Remote(Launcher):
    """A launcher of agents at `places`, in turn by the numbers of their workers."""

    def __init__(self, *places: Here | Machine, issuer: Issuer | None = None, before: Before | None = None) -> None:
        self.places = places or (Here(),)
        self.issuer = issuer
        self.before = before
        self.processes: list[RemoteProcess] = []
        self.agents: list[ProcessAgent] = []
        self.orders: list[Order] = []

    def open(self, config: PoolConfig) -> Site:
        check_remote(config)
        return _RemoteSite(self, config)

    def agent_of(self, process: RemoteProcess) -> ProcessAgent:
        """The agent beside a worker."""
        (agent,) = (agent for agent in self.agents if agent.pid == process.pid)
        return agent

    async def end_agents(self) -> None:
        """End all agents that live still, such as those that were cut off."""
        for agent in self.agents:
            if agent.process.returncode is None:
                agent.process.send_signal(signal.SIGCONT)
                await agent.end()


class _RemoteSite(Site):
    is_here = False

    def __init__(self, launcher: Remote, config: PoolConfig) -> None:
        self._launcher = launcher
        self._config = config
        self._issuer = launcher.issuer or Authority.of(config)
        self._loop = AsyncioLoop()
        self._nursery: trio.Nursery | None = None

    @property
    def loop(self) -> AsyncioLoop:
        return self._loop

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._loop.run)
            task_status.started()
            await trio.sleep_forever()

    async def launch(self, worker_id: str, number: int) -> RemoteProcess:
        assert self._nursery is not None
        certificates = self._issuer.issue(worker_id)
        order = order_of(self._config, worker_id, number, certificates)
        place = self._launcher.places[number % len(self._launcher.places)]
        command = [*place.prefix, sys.executable, "-m", "tests.helpers.agent_process", place.host]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        agent = ProcessAgent(process, f"node at {place.host}")
        self._launcher.agents.append(agent)
        self._nursery.start_soon(agent.read_answers)
        try:
            await agent.start(order)
        except BaseException:
            with trio.CancelScope(shield=True):
                await agent.end()
            raise
        if self._launcher.before is not None:
            await self._launcher.before(agent, order)
        remote = RemoteProcess(self._config, order, certificates, agent, self._loop)
        self._launcher.processes.append(remote)
        self._launcher.orders.append(order)
        return remote

    def close(self) -> None:
        pass
