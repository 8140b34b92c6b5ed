"""Breakpoints of one worker: it asks for the terminal of the host, and the host lends it to one worker at a time."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import trio

from bridge_py.wire.readable import readable
from snakepit_trio._processes.terminal import PseudoTerminal, Terminal
from snakepit_trio._util.log import get_logger

_LONGEST: Final = 16384  # bytes of a message
_UNKNOWN: Final = 0  # stands for a call
_SOON: Final = 0.3  # seconds in which a debugger that was left has given the terminal back
_LONGEST_PROBLEM: Final = 500
_LONGEST_PLACE: Final = 300  # characters
_NONE: Final = "the host of this pool has none: run it in a terminal, or set PYTHONBREAKPOINT=0"
_CANCELLED: Final = "the call was cancelled"

logger = get_logger("snakepit.debugger")
_turns: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("snakepit.debugger")


class _Said(msgspec.Struct):
    """A message of the worker: a request has a number, and `close` the number of the request that is over."""

    open: int = 0
    close: int = 0
    call: int = 0
    where: str = ""


class _Request:
    """One request for the terminal. It is over when the worker says so, or when its call is cancelled."""

    def __init__(self, said: _Said) -> None:
        self.number = said.open
        self.call_id = said.call
        self.where = readable(said.where, _LONGEST_PLACE).replace("\n", " ") or "a breakpoint"
        self.scope = trio.CancelScope()
        self.is_hung_up = False
        self.is_lent = False


class Breakpoints:
    """Lends the terminal to a worker.

    `begun` and `over` are called when the worker begins to stand, and goes on. `is_cancelled` tells whether a call is
    cancelled: its code may reach a breakpoint before it knows. 0 stands for a thread or a task of any call.
    """

    def __init__(
        self,
        worker_id: str,
        python: str,
        control: socket.socket,
        interrupt: Callable[[], None],
        is_cancelled: Callable[[int], bool],
        begun: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._id = worker_id
        self._python = python
        self._control = control
        self._interrupt = interrupt
        self._is_cancelled = is_cancelled
        self._begun = begun
        self._over = over
        self._request: _Request | None = None

    @property
    def is_open(self) -> bool:
        """Whether the worker stands at a breakpoint, or waits there for the terminal."""
        return self._request is not None

    def hang_up(self, call_id: int) -> None:
        """End the debugger of a call: the call is cancelled, and its code goes on by an exception.

        A thread or a task of a tool does not say whose it is. So its debugger ends with any cancelled call of the
        worker: otherwise it might keep that very call from ending.
        """
        if self._request is not None and self._request.call_id in (call_id, _UNKNOWN):
            self._request.is_hung_up = True
            self._close()

    def end(self) -> None:
        """Note that the worker has ended."""
        if self._request is not None:
            self._close()

    def _close(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.scope.cancel()
            self._over()

    async def run(self) -> None:
        """Serve the worker until it ends, or breaks the rules; then it gets no terminal any more."""
        try:
            async with trio.open_nursery() as nursery:
                while (said := await self._receive()) is not None:
                    self._hear(said, nursery)
                self._close()
        finally:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # so that no breakpoint waits for an answer

    def _hear(self, said: _Said, nursery: trio.Nursery) -> None:
        if said.open and self._request is None:
            request = _Request(said)
            if self._is_cancelled(said.call):
                self._answer(request, _CANCELLED)
                return
            self._request = request
            self._begun()
            nursery.start_soon(self._lend, request)
        elif said.close and self._request is not None and self._request.number == said.close:
            self._close()

    async def _receive(self) -> _Said | None:
        while True:
            await trio.lowlevel.wait_readable(self._control)
            try:
                message = self._control.recv(_LONGEST)
                return msgspec.json.decode(message, type=_Said) if message else None
            except BlockingIOError:
                pass
            except OSError:
                return None
            except msgspec.DecodeError as error:
                logger.error("worker %s asks for the terminal in a way that no worker does: %s", self._id, error)
                return None

    async def _lend(self, request: _Request) -> None:
        problem = _CANCELLED
        try:
            with request.scope:
                await self._lend_terminal(request)
                problem = "the terminal has gone"
        except OSError as error:
            problem = f"{error}" if request.is_lent else _NONE
        except Exception as error:
            logger.exception("lending the terminal to worker %s failed", self._id)
            problem = f"lending it failed: {error}"
        if not request.is_lent:
            self._answer(request, problem)

    async def _lend_terminal(self, request: _Request) -> None:
        with Terminal() as terminal:
            async with self._turn(request, terminal):
                who = f"worker {self._id} stands at {request.where}"
                await terminal.until_in_front(
                    lambda: logger.warning("%s, and waits until this program is in the foreground (fg)", who)
                )
                async with terminal.lent(self._python) as pseudo:
                    terminal.say(who)
                    try:
                        await self._give(request, pseudo)
                    finally:
                        if request.is_hung_up:
                            terminal.say(f"worker {self._id}: {_CANCELLED}, and leaves the debugger")

    @contextlib.asynccontextmanager
    async def _turn(self, request: _Request, terminal: Terminal) -> AsyncIterator[None]:
        try:
            turn = _turns.get()
        except LookupError:
            _turns.set(turn := trio.Lock())
        with trio.move_on_after(_SOON) as waiting:
            await turn.acquire()
        if waiting.cancelled_caught:
            terminal.say(f"worker {self._id} waits for the debugger at {request.where}")
            await turn.acquire()
        try:
            yield
        finally:
            turn.release()

    async def _give(self, request: _Request, pseudo: PseudoTerminal) -> None:
        self._answer(request, "", pseudo.theirs)
        pseudo.given()
        await pseudo.copy(self._interrupt)

    def _answer(self, request: _Request, problem: str, *descriptors: int) -> None:
        request.is_lent = bool(descriptors)
        message = json.dumps({"open": request.number, "problem": problem[:_LONGEST_PROBLEM]}).encode()
        with contextlib.suppress(OSError):  # the worker has ended
            socket.send_fds(self._control, [message], descriptors)
