"""What worker code asks of its host, and how it waits for the answer: a thread blocks, a coroutine awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import msgspec

from .wire import codec
from .wire.errors import ToolCancelled, error_of
from .wire.frames import Frame, Kind

T = TypeVar("T")
#: Code that asks, whoever waits for it: it yields (verb, arguments) and is sent an `Answer`.
Steps = Generator[tuple[str, tuple[Any, ...]], "Answer", T]
Deliver = Callable[["Answer | None"], None]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The frame that ends an ask, and how many invalidations of its session had come before it."""

    frame: Frame
    stamp: int

    def value(self) -> Any:
        """The answer. Raises what the host raised, and `CodecError`."""
        if self.frame.kind == Kind.ERROR:
            raise error_of(codec.decode_fault(self.frame.body))
        return codec.decode(self.frame.body, self.frame.attached)


class Host(Protocol):
    """The road to the host. From any thread."""

    def ask(self, call_id: int, session_id: str, verb: str, arguments: tuple[Any, ...], deliver: Deliver) -> None:
        """Ask on behalf of a call; `deliver` gets the answer, on the link's thread. Raises `EncodeError`."""


class Asker:
    """Asks on behalf of one call."""

    def __init__(self, host: Host, call_id: int, session_id: str) -> None:
        self._host = host
        self._call_id = call_id
        self._session_id = session_id
        self._waiting: set[SimpleQueue[Answer | None]] = set()
        self._is_closed = False

    def block(self, steps: Steps[T]) -> T:
        """Run steps to their end, on a thread that may wait. Raises `ToolCancelled` if `close` ends the waiting."""
        try:
            verb, arguments = next(steps)
            while True:
                verb, arguments = steps.send(self._block(verb, arguments))
        except StopIteration as stop:
            found: T = stop.value
            return found

    async def wait(self, steps: Steps[T]) -> T:
        """Run steps to their end, in a coroutine."""
        try:
            verb, arguments = next(steps)
            while True:
                verb, arguments = steps.send(await self._wait(verb, arguments))
        except StopIteration as stop:
            found: T = stop.value
            return found

    def close(self) -> None:
        """End the waiting of `block`, now and from now on; from any thread."""
        self._is_closed = True
        # An asynchronous exception does not end a wait in C.
        for answers in tuple(self._waiting):
            answers.put(None)

    def _block(self, verb: str, arguments: tuple[Any, ...]) -> Answer:
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        self._waiting.add(answers)
        try:
            if self._is_closed:
                raise ToolCancelled
            self._host.ask(self._call_id, self._session_id, verb, arguments, answers.put)
            answer = answers.get()
        finally:
            self._waiting.discard(answers)
        if answer is None:
            raise ToolCancelled
        return answer

    async def _wait(self, verb: str, arguments: tuple[Any, ...]) -> Answer:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer | None) -> None:
            if answer is not None and not future.done():
                future.set_result(answer)

        self._host.ask(
            self._call_id, self._session_id, verb, arguments, lambda answer: _call_soon(loop, settle, answer)
        )
        return await future


def _call_soon(loop: asyncio.AbstractEventLoop, settle: Deliver, answer: Answer | None) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle, answer)
