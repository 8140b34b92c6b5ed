"""The connection of a store to whichever of its Redis servers is the primary.

There is one connection at a time, for commands and for notices alike. coredis pairs answers with requests by their
order, so many tasks share it, and a task that is cancelled leaves its request in the queue until its answer has come.
The connections of coredis' own pools are not used: a connection that breaks while it is lent costs its pool a place.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio
from coredis.exceptions import ConnectionError as Disconnected
from coredis.exceptions import NoScriptError, ResponseError

from snakepit_trio._util.log import get_logger

from .address import Address, Connection, Unfit
from .failures import refusal_of
from .scripts import SCRIPTS

logger = get_logger("snakepit.state.redis")

_CHANGED: Final = (b"made", b"created")
_SHORTEST, _LONGEST = 0.02, 0.5  # seconds between attempts to connect


class Unanswered(Exception):
    """No server has answered in time. `sent` says whether a server may have got the command. `problem` says why."""

    def __init__(self, problem: str, *, sent: bool) -> None:
        super().__init__(problem)
        self.problem = problem
        self.sent = sent


class Link:
    """Sends scripts, and takes in notices. `run` keeps the connection while the store is open.

    `hear` is called with each notice. `on_connect` is called when there is a new connection: notices may have been
    missed before.

    The *generation* is a number that rises when the server is another one than before, or has started anew: then it
    may have lost what was acknowledged, and what this host knows may never have been.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        prefix: bytes,
        *,
        timeout: float,
        replicas: int,
        hear: Callable[[bytes], None],
        on_connect: Callable[[], None],
    ) -> None:
        self._addresses = tuple(addresses)
        self._prefix = prefix
        self._timeout = timeout
        self._pace = timeout / 4  # seconds: a server that answers nothing for so long is left for the next one
        self._replicas = replicas
        self._hear = hear
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self.generation = 0
        self._history: tuple[bytes, bytes] | None = None
        self._changed = trio.Event()
        self._problems: dict[str, str] = {}  # by address: why the last connection has ended, or was not made

    def __repr__(self) -> str:
        return f"<Link to {self.where}>"

    @property
    def where(self) -> str:
        """The addresses, for humans."""
        return ", ".join(map(str, self._addresses))

    @property
    def _problem(self) -> str:
        found = [f"{where}: {problem}" for where, problem in self._problems.items()]
        return "; ".join(found) or f"{self.where}: no answer"

    # Commands.

    async def call(
        self, script: str, make_args: Callable[[int], Sequence[bytes | int]], *, is_change: bool
    ) -> tuple[Any, int]:
        """Run a script on the server, and again on another connection until it is answered: it must bear that.

        `make_args` makes the arguments for the server of a generation. Returns the answer and the generation, after a
        change once enough replicas have it. Raises `Unanswered` after `timeout` seconds, and `Refusal`.
        """
        sha, sent = SCRIPTS[script].sha, False
        with trio.move_on_after(self._timeout):
            while True:
                connection, generation = await self._wait_for_connection()
                args = make_args(generation)
                sent = True
                try:
                    answer = await connection.ask(b"EVALSHA", sha, 1, self._prefix, *args)
                    if is_change and self._replicas and answer[0] in _CHANGED:
                        await self._confirm(connection)
                    return answer, generation
                except NoScriptError:
                    await self._try(connection, self._load)
                except ResponseError as error:
                    self._leave_or_raise(connection, error)
                except Exception as error:  # whatever has broken the connection
                    self._lose(connection, _text_of(error))
        raise Unanswered(self._problem, sent=sent)

    async def _confirm(self, connection: Connection) -> None:
        """Wait until enough replicas have all that was answered on this connection until now."""
        connection.answered += 1
        mine = connection.answered
        async with connection.confirming:  # one question serves all that have come until it is asked
            while connection.confirmed < mine:
                covered = connection.answered
                there = await connection.ask(b"WAIT", self._replicas, int(500 * self._pace))
                if there >= self._replicas:
                    connection.confirmed = covered
                else:
                    problem = f"{there} of {self._replicas} replicas have the change"
                    self._problems[str(connection.address)] = problem

    def _leave_or_raise(self, connection: Connection, error: ResponseError) -> None:
        refusal = refusal_of(error)
        if not refusal.passes:
            raise refusal from error
        self._lose(connection, str(refusal))

    async def _try(self, connection: Connection, step: Callable[[Connection], Awaitable[None]]) -> None:
        try:
            await step(connection)
        except Exception as error:  # coredis raises whatever has broken the connection
            self._lose(connection, _text_of(error))

    async def _wait_for_connection(self) -> tuple[Connection, int]:
        while self._connection is None:
            await self._changed.wait()
        return self._connection, self.generation

    # The connection.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection until cancelled."""
        task_status.started()
        pause = 0.0
        for address in itertools.cycle(self._addresses):
            await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - many hosts must not come at the same time
            while await self._serve(address):
                pause = _SHORTEST
                await trio.sleep(pause)
            pause = min(max(2 * pause, _SHORTEST), _LONGEST)

    async def _serve(self, address: Address) -> bool:
        """Connect, and serve until the connection is lost. Returns whether there was a connection."""
        try:
            with trio.fail_after(2 * self._pace):
                connection = await address.connect()
        except Exception as error:  # whatever anyio and the resolver raise
            self._problems[str(address)] = _text_of(error)
            return False
        return await self._use(connection)

    async def _use(self, connection: Connection) -> bool:
        was_up = False
        async with trio.open_nursery() as nursery:
            try:
                nursery.start_soon(self._bound_start, connection)
                await nursery.start(_run, connection)
                await self._prepare(connection)
                was_up = True
                nursery.start_soon(self._probe, connection)
                async for message in connection.push_messages:
                    self._take_message(message)
            except Exception as error:  # coredis raises whatever has broken the connection
                self._lose(connection, _text_of(error))
                if was_up:
                    logger.warning("connection lost: %s", self._problem)
            finally:
                self._lose(connection, "the connection was closed")
                nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()  # a start that was cancelled has ended with an error of coredis
        return was_up

    async def _bound_start(self, connection: Connection) -> None:
        try:
            await trio.sleep(2 * self._pace)
        finally:
            if self._connection is not connection:
                connection.give_up(f"no answer for {2 * self._pace:g} seconds")

    async def _prepare(self, connection: Connection) -> None:
        await _check_role(connection)
        await self._load(connection)
        info = await connection.ask(b"INFO")
        connection.send_command(b"SUBSCRIBE", self._prefix + b"feed")
        await connection.ask(b"PING")  # from its answer on, no notice is missed
        # A server gets a new run_id when it starts, and a new replid when it becomes a primary.
        if (history := (_entry_of(info, b"run_id"), _entry_of(info, b"master_replid"))) != self._history:
            self._history = history
            self.generation += 1
            _warn_of_eviction(connection.address, info)
        self._problems.clear()
        self._connection = connection
        self._changed.set()
        self._on_connect()

    async def _load(self, connection: Connection) -> None:
        for request in [connection.create_request(b"SCRIPT LOAD", script.text) for script in SCRIPTS.values()]:
            await request

    def _take_message(self, message: Any) -> None:
        if len(message) == 3 and message[0] == b"message":
            self._hear(message[2])

    async def _probe(self, connection: Connection) -> None:
        """Leave a server that is no primary any more, and a connection on which nothing comes.

        A network that has failed says nothing.
        """
        while True:
            await trio.sleep(self._pace)
            before = connection.statistics.bytes_read
            with trio.move_on_after(self._pace) as scope:
                await self._try(connection, _check_role)
            if scope.cancelled_caught and connection.statistics.bytes_read == before:
                self._lose(connection, f"no answer for {self._pace:g} seconds")

    def _lose(self, connection: Connection, problem: str) -> None:
        """Note that a connection is no good, and end it: what is unanswered on it never gets an answer."""
        if not connection.is_lost:
            connection.is_lost = True
            self._problems[str(connection.address)] = problem
        if self._connection is connection:
            self._connection = None
            self._changed = trio.Event()
        connection.invalidate()


async def _run(  # noqa: ASYNC128 - coredis tells when it has started
    connection: Connection, *, task_status: trio.TaskStatus[None]
) -> None:
    # Ended by `give_up` and `invalidate`, also where we are cancelled: coredis logs a cancellation as a failure.
    with trio.CancelScope(shield=True):
        await connection.run(task_status=task_status)


async def _check_role(connection: Connection) -> None:
    (role, *_) = await connection.ask(b"ROLE")
    if role != b"master":
        raise Unfit(f"it is a {role.decode()}, and no primary")


def _entry_of(info: bytes, name: bytes) -> bytes:
    found = re.search(rb"^%b:([^\r\n]*)" % name, info, re.MULTILINE)
    if found is None:
        raise Unfit(f"it does not tell its {name.decode()}: let the user run INFO")
    return found[1]


def _warn_of_eviction(address: Address, info: bytes) -> None:
    policy = _entry_of(info, b"maxmemory_policy")
    if policy != b"noeviction" and _entry_of(info, b"maxmemory") != b"0":
        logger.warning(
            "%s throws sessions away when its memory is full (maxmemory-policy is %s): set it to noeviction",
            address,
            policy.decode(),
        )


def _text_of(error: BaseException) -> str:
    if isinstance(error, ResponseError):
        return str(refusal_of(error))
    if isinstance(error, Disconnected) and not isinstance(error, Unfit) and not str(error.__cause__ or ""):
        return "the connection has ended"
    return str(error.__cause__ or error) or type(error).__name__
