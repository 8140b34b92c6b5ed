"""Worker processes on other machines: an agent stands beside each of them, and the host dials it over TCP with TLS.

A host cannot reap a process of another machine. It learns of the end from the agent, which can be lost: its machine may
be gone, or the network between. So a worker watches its link (`bridge_py.link.silence`), and ends itself when it has
heard nothing for a time. When the host has closed the link and has waited for that long, it knows that the worker has
ended, although nobody has told it.
"""

from __future__ import annotations

import json
import logging
import secrets
import signal
import sys
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
import trio

from bridge_py.link.remote import RemoteSettings
from bridge_py.link.silence import FROZEN, LONGEST, SHORTEST
from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import REAP_SECONDS, Connection, ConnectionContext, Output
from snakepit_trio._connections.grpc_link import GrpcLink, TcpAddress
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import told

from .agent import Ended, Look, Order
from .authority import LinkCertificates
from .local import worker_arguments

_LINGERS: Final = 0.5  # seconds from SIGKILL to the end of the link: what has come is still read
_LONGER: Final = 1.5  # than the host's patience is the worker's, so that the host is the first to notice a cut network
_MARGIN: Final = 2.0  # seconds from the end of a worker's patience to its end
_RELEASE: Final = 5.0  # seconds
_FOREVER: Final = 30 * 24 * 3600.0  # seconds: JSON has no infinite numbers, and the kernel counts 49 days

logger = get_logger("snakepit.processes")
T = TypeVar("T")


class AgentLost(Exception):
    """The agent of a worker is gone, or its machine is, and nothing is known of the worker."""


class Agent(Protocol):
    """What stands beside one worker on its machine, as the host sees it. Each method may be cancelled.

    All raise `AgentLost` when the agent is gone. A method that hangs because the network is cut harms nobody: the host
    waits for none of them longer than its own settings say. They are called in shielded scopes too, when the pool and
    the services of its site have been cancelled already: so they must not depend on tasks that are cancelled with them.
    """

    @property
    def node(self) -> str:
        """The name of the machine."""
        ...

    @property
    def pid(self) -> int:
        """The worker's process id, on that machine."""
        ...

    @property
    def address(self) -> tuple[str, int]:
        """Where the worker listens: an address of its machine, and a port."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to the worker and the descendants in its group. SIGKILL ends all descendants."""

    async def wait(self) -> Ended:
        """Wait until the worker and all that it has started have ended. It may be called again."""
        ...

    async def look(self) -> Look:
        """Look at the worker."""
        ...

    async def read_output(self, *, is_stderr: bool) -> bytes:
        """The next bytes that the worker has printed to stdout or stderr; empty at the end."""
        ...

    async def release(self) -> None:
        """End everything that is left of the worker, and the agent. Takes a bounded time, and raises nothing."""


def check_remote(config: PoolConfig) -> None:
    """Raise `UsageError` for a pool whose workers cannot be on other machines."""
    if config.adapter.protocol != "link":
        raise UsageError(f"{config.adapter!r}: workers on other machines need an adapter of a Python class")
    if config.debug:
        raise UsageError("debug: workers on other machines have no way to this terminal: give debug=False")


def silence_of(config: PoolConfig) -> float:
    """Seconds after which a link of a pool is dead that nothing comes on: the time for all missed pings.

    It is 3 s at least, and 10 minutes at the most: probes of the kernel's need no pings.
    """
    return min(_time_for_pings(config), LONGEST)


def frozen_of(config: PoolConfig) -> float:
    """Seconds after which a link is dead whose other machine answers, and whose other process says nothing."""
    return min(FROZEN * _time_for_pings(config), _FOREVER)


def _time_for_pings(config: PoolConfig) -> float:
    return max(SHORTEST, config.missed_pings * (config.ping_interval + config.ping_timeout))


def order_of(config: PoolConfig, worker_id: str, number: int, certificates: LinkCertificates) -> Order:
    """What an agent needs to start a worker of a pool, with a fresh secret."""
    adapter, own = config.adapter, config.worker_options.of(number)
    settings = RemoteSettings(
        tls=certificates.worker,
        host_sha256=certificates.host_sha256,
        silence=_LONGER * silence_of(config),
        frozen=_LONGER * frozen_of(config),
        first_host=min(config.start_timeout, _FOREVER),
    )
    options = {**config.options, **own.options}
    cpus = tuple(sorted(own.cpus or ()))
    return Order(
        worker_id=worker_id,
        number=number,
        arguments=(*adapter.script_args(), *worker_arguments(config, worker_id)),
        variables={**(config.env or {}), **(own.env or {})},
        options=json.dumps(options).encode() + b"\n" + config.first_call,
        link=msgspec.json.encode(settings),
        secret=secrets.token_hex(16),
        python=None if config.python == sys.executable else config.python,
        folder=None if config.cwd is None else str(config.cwd),
        umask=config.umask,
        cpus=cpus,
        threads=min(config.threads, len(cpus)) if cpus and config.threads else config.threads,
    )


class RemoteProcess:
    """One worker process on another machine, by its agent and its order."""

    def __init__(
        self, config: PoolConfig, order: Order, certificates: LinkCertificates, agent: Agent, loop: AsyncioLoop
    ) -> None:
        self.exit_code: int | None = None
        self.last_words = ""
        self.is_lost = False  # nobody knows how it has ended
        self._config = config
        self._secret = order.secret
        self._certificates = certificates
        self._agent = agent
        self._loop = loop
        self._silence = silence_of(config)
        self._look = Look()
        self._ended: Ended | None = None
        self._is_gone = False
        self._waiting = trio.Lock()
        self._link: GrpcLink | None = None
        self._has_linked = False
        self._link_ends = trio.Event()  # the link is over, or shall be soon: from here on, the worker hears nothing
        self._signals: list[signal.Signals] = []
        self._has_signals = trio.Event()

    @property
    def node(self) -> str:
        """The name of its machine."""
        return self._agent.node

    @property
    def pid(self) -> int:
        """The process id, on its machine."""
        return self._agent.pid

    @property
    def reap_seconds(self) -> float:
        """The longest time in seconds from SIGKILL until `wait` returns, even if the agent is lost."""
        return REAP_SECONDS + _LINGERS + self._patience

    @property
    def _patience(self) -> float:
        """Seconds from the end of its link to its own end, if nobody ends it."""
        return _MARGIN + (_LONGER * self._silence if self._has_linked else 0.0)  # without a link it has had no calls

    @property
    def last_started(self) -> int | None:
        """Id of the last call that the worker has started; None if it is lost. While it lives, from the latest look."""
        if self._ended is not None:
            return self._ended.last_started
        return None if self.is_lost else self._look.last_started

    @property
    def outputs(self) -> Sequence[Output]:
        """The output streams of the process, by its agent."""
        stdout, stderr = (_AgentOutput(self._agent, is_stderr) for is_stderr in (False, True))
        return Output(stdout, logging.INFO), Output(stderr, logging.WARNING, True)

    def connect(self, context: ConnectionContext) -> Connection:
        """Make the connection to the process."""
        host, port = self._agent.address
        made = self._certificates
        address = TcpAddress(host, port, made.host, made.worker_name, self._silence, frozen_of(self._config))
        self._link = GrpcLink(context, self._loop, address, self._secret, self.pid, self._note_link)
        self._link.when_over = self._link_ends.set
        return self._link

    def _note_link(self) -> None:
        self._has_linked = True

    def is_ready(self) -> None:
        """Note that the worker has introduced itself."""

    def is_stopped(self) -> bool:
        """Whether the process was stopped when it was looked at last."""
        return self._look.is_stopped

    def resident_bytes(self) -> int:
        """The resident memory in bytes when the process was looked at last; 0 if it is not known."""
        return self._look.resident_bytes

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel of its machine killed it because memory ran out."""
        return self._ended is not None and self._ended.was_killed_for_memory

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and its descendants. The agent gets it while somebody waits in `wait`."""
        if number is signal.SIGKILL:
            self._link_ends.set()  # even if the agent does not answer
        if number not in self._signals:
            self._signals.append(number)
            self._has_signals.set()

    async def wait(self) -> None:
        """Wait until the process has ended, or until it must have ended, if its agent is lost."""
        async with self._waiting:
            if self._is_gone:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_signals)
                nursery.start_soon(self._look_on)
                nursery.start_soon(self._outlast, nursery.cancel_scope)
                await self._hear_of_end()
                nursery.cancel_scope.cancel()
            self._is_gone = True

    async def _hear_of_end(self) -> None:
        try:
            ended = await _ask(self._agent.wait())
        except AgentLost as lost:
            self._lose(f"the agent beside it on {self.node} is gone: {lost or 'nothing is known of it'}")
            await trio.sleep_forever()  # noqa: ASYNC120 - until its own patience has ended; the loss has been told
            raise AssertionError("unreachable") from None
        self._ended, self.exit_code, self.last_words = ended, ended.exit_code, ended.last_words

    def _lose(self, why: str) -> None:
        if self._link is not None:
            self._link.lose(why)
        self._link_ends.set()

    async def _send_signals(self) -> None:
        while True:
            while self._signals:
                number = self._signals[0]
                try:
                    await _ask(self._agent.signal(number))
                except AgentLost:
                    return  # `_hear_of_end` gets this error as well
                self._signals.remove(number)  # and not before: this may be cancelled
            self._has_signals = trio.Event()
            await self._has_signals.wait()

    async def _look_on(self) -> None:
        while True:
            try:
                self._look = await _ask(self._agent.look())
            except AgentLost:
                return
            await trio.sleep(self._config.ping_interval)

    async def _outlast(self, waiting: trio.CancelScope) -> None:
        """When the link is over, wait as long as the worker can live without it, and then for nothing more."""
        await self._link_ends.wait()
        await trio.sleep(_LINGERS)
        self._lose("it was killed")
        await trio.sleep(self._patience)
        if self._ended is None:
            self.is_lost = True
            logger.warning(
                "nobody has told how worker process %d on %s has ended: it must have ended, because its link is closed",
                self.pid,
                self.node,
            )
        waiting.cancel()

    async def release(self) -> None:
        """End the agent, and what may be left of the worker. Takes a few seconds at the most."""
        self._lose("it was released")
        with trio.move_on_after(_RELEASE, shield=True):
            with logger.tolerates("releasing the agent of a worker"):
                await self._agent.release()  # noqa: ASYNC102 - shielded and bounded


async def _ask(answer: Awaitable[T]) -> T:
    """Await what an agent answers. A fault of the agent's is the loss of the agent."""
    try:
        return await answer
    except AgentLost:
        raise
    except Exception as error:
        logger.exception("the agent of a worker failed")
        raise AgentLost(told(error)) from error


class _AgentOutput(trio.abc.ReceiveStream):
    """What a worker prints. It ends when the agent is lost."""

    def __init__(self, agent: Agent, is_stderr: bool) -> None:
        self._agent = agent
        self._is_stderr = is_stderr

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - the agent bounds it
        try:
            return await _ask(self._agent.read_output(is_stderr=self._is_stderr))
        except AgentLost:
            return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
