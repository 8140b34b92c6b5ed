"""How worker code asks its host, and how it waits for the answer: a thread blocks, a coroutine awaits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator
from queue import SimpleQueue
from typing import Any, Final, Protocol, TypeVar

import msgspec

from bridge_py.wire import codec
from bridge_py.wire.errors import SessionError, ToolCancelled, error_of
from bridge_py.wire.frames import Frame, Kind

T = TypeVar("T")
#: Code that asks the host, for a thread or for a coroutine: it yields (verb, arguments) and is sent an `Answer`.
Questions = Generator[tuple[str, tuple[Any, ...]], "Answer", T]
Deliver = Callable[["Answer | None"], None]
_WINDOW: Final = 64  # the credit of a stream: chunks of up to 4 KiB that may be under way


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A frame that answers a request, and how many invalidations of the request's session had come before it."""

    frame: Frame
    stamp: int

    def value(self) -> Any:
        """Decode the answer. Raises the error that the host raised, and `CodecError`."""
        if self.frame.kind == Kind.ERROR:
            raise error_of(codec.decode_fault(self.frame.body))
        return codec.decode(self.frame.body, self.frame.attached, trusted=True)

    @property
    def is_chunk(self) -> bool:
        """Whether more answers will come."""
        return self.frame.kind == Kind.CHUNK


class PendingRequest:
    """A request that is under way."""

    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id = 0  # the request's call id on the link, set and read on the link's thread


class Host(Protocol):
    """Carries requests to the host. Any thread may use it."""

    def make_queue(self) -> Any:
        """Make the queue at which a thread waits, normally a `SimpleQueue`.

        Any thread calls its `put`; the waiting thread calls its `get`.
        """

    def ask(
        self,
        call_id: int,
        session_id: str,
        verb: str,
        arguments: tuple[Any, ...],
        deliver: Deliver,
        credit: int | None = None,
    ) -> PendingRequest:
        """Ask the host on behalf of a call; the thread of the connection calls `deliver` with the answer.

        With `credit` the answer is a stream: `deliver` gets each chunk and then the end. Raises
        `EncodeError`, and `SessionError` in a process that a tool has forked.
        """
        ...

    def grant(self, asked: PendingRequest, credit: int) -> None:
        """Give the host more credit for a stream."""

    def drop(self, asked: PendingRequest) -> None:
        """Give up a request whose answer nobody needs any more, so that the host may stop its work on it."""


def check_process(worker: int) -> None:
    """Raise `SessionError` in a process that a tool has forked: it has no link, and would wait forever."""
    if os.getpid() != worker:
        raise SessionError("a process that a tool has forked cannot ask the host: it has no link")


class HostClient:
    """Asks the host on behalf of one call."""

    def __init__(self, host: Host, call_id: int, session_id: str) -> None:
        self._host = host
        self._call_id = call_id
        self._session_id = session_id
        self._waiting: set[SimpleQueue[Answer | None]] = set()
        self._is_closed = False

    def block(self, steps: Questions[T]) -> T:
        """Run steps to their end, on a thread that may wait. Raises `ToolCancelled` if `close` ends the waiting."""
        try:
            verb, arguments = next(steps)
            while True:
                verb, arguments = steps.send(self._block(verb, arguments))
        except StopIteration as stop:
            found: T = stop.value
            return found

    async def wait(self, steps: Questions[T]) -> T:
        """Run steps to their end, in a coroutine."""
        try:
            verb, arguments = next(steps)
            while True:
                verb, arguments = steps.send(await self._wait(verb, arguments))
        except StopIteration as stop:
            found: T = stop.value
            return found

    def stream(self, verb: str, arguments: tuple[Any, ...]) -> Generator[Any, None, None]:
        """Ask for a stream and yield its chunks, on a thread that may wait.

        Closing the generator stops the stream, and so does `close`, which makes the generator raise `ToolCancelled`.
        """
        answers: SimpleQueue[Answer | None] = self._host.make_queue()
        self._waiting.add(answers)
        asked = None
        try:
            if self._is_closed:
                raise ToolCancelled
            asked = self._host.ask(self._call_id, self._session_id, verb, arguments, answers.put, _WINDOW)
            taken = 0
            while (answer := answers.get()) is not None and answer.is_chunk:
                taken = self._took(asked, taken + answer.frame.number)
                yield answer.value()
            if answer is None:
                raise ToolCancelled
            asked = None
            _check_end(answer)
        finally:
            self._waiting.discard(answers)
            if asked is not None:
                self._host.drop(asked)

    async def stream_async(self, verb: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        """Ask for a stream and yield its chunks, in a coroutine. Closing the generator stops the stream."""
        loop = asyncio.get_running_loop()
        answers: asyncio.Queue[Any] = asyncio.Queue()
        asked: PendingRequest | None = self._host.ask(
            self._call_id,
            self._session_id,
            verb,
            arguments,
            lambda answer: _call_soon(loop, answers.put_nowait, answer),
            _WINDOW,
        )
        taken = 0
        try:
            while (answer := await answers.get()).is_chunk:
                assert asked is not None
                taken = self._took(asked, taken + answer.frame.number)
                yield answer.value()
            asked = None
            _check_end(answer)
        finally:
            if asked is not None:
                self._host.drop(asked)

    def _took(self, asked: PendingRequest, taken: int) -> int:
        if taken < _WINDOW // 2:
            return taken
        self._host.grant(asked, taken)
        return 0

    def close(self) -> None:
        """End the waiting of `block` and `stream`, now and from now on. Any thread may call this."""
        self._is_closed = True
        # An asynchronous exception does not end a wait in C.
        for answers in tuple(self._waiting):
            answers.put(None)

    def _block(self, verb: str, arguments: tuple[Any, ...]) -> Answer:
        answers: SimpleQueue[Answer | None] = self._host.make_queue()
        self._waiting.add(answers)
        try:
            if self._is_closed:
                raise ToolCancelled
            # No `drop` here: this waiting ends early only with the call, and then the host stops its work for the call.
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

        asked = self._host.ask(
            self._call_id, self._session_id, verb, arguments, lambda answer: _call_soon(loop, settle, answer)
        )
        try:
            return await future
        except asyncio.CancelledError:
            self._host.drop(asked)
            raise


def _check_end(answer: Answer) -> None:
    """Raise the error that ended a stream, if an error did."""
    if answer.frame.kind != Kind.END:
        answer.value()


def _call_soon(loop: asyncio.AbstractEventLoop, settle: Deliver, answer: Answer | None) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle, answer)
