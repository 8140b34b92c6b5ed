"""One call of a tool for a client of HTTP: the client that leaves takes its call with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import trio

from bridge_py.wire.errors import CallTimeout
from snakepit_trio._calls.call import DEFAULT, Timeout
from snakepit_trio._calls.progress import OnProgress
from snakepit_trio._calls.streams import Chunks
from snakepit_trio._util.nurseries import background_nursery

from .asgi import ClientLeft, Receive, Send, until_left
from .events import Event, Outbox, send_events
from .http_json import text_of
from .http_requests import CallOptions
from .problems import Problem, problem_of


class CallingPool(Protocol):
    """What calls need of a pool."""

    async def execute(
        self,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        session: str | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """See `Pool.execute`."""
        ...

    def stream(
        self,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        session: str | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> AbstractAsyncContextManager[Chunks[Any]]:
        """See `Pool.stream`."""
        ...


_LATER: Final = 0.5  # seconds after a stream's time in which a client may still take a chunk
CLOSING: Final = ("closing", "The server is closing")


def closing_problem(detail: str) -> Problem:
    """The problem of a call that ends, or does not begin, because the server closes."""
    return Problem(503, *CLOSING, detail, headers=(("retry-after", "5"),))


class HttpCall:
    """One call. It ends when the client leaves, when its time is over, or by `stop`.

    Nothing here is cancelled while it sends: a server that is interrupted there could lose what it has for others.
    """

    def __init__(
        self, pool: CallingPool, tool: str, args: Mapping[str, Any], options: CallOptions, seconds: float
    ) -> None:
        """`seconds` is the time that the call has."""
        self._pool = pool
        self._tool = tool
        self._args = args
        self._seconds = seconds
        self._options: dict[str, Any] = {
            "timeout": seconds,
            "priority": options.priority,
            "session": options.session,
        }
        self._scope = trio.CancelScope()
        self._has_left = False

    def stop(self) -> None:
        """End the call, because the server closes. Its client is told so."""
        self._scope.cancel()

    async def answer(self, receive: Receive, send: Send) -> None:
        """Run the call and send its result, or its problem. Raises `ClientLeft` after the call has ended."""
        async with background_nursery() as nursery:
            nursery.start_soon(self._end_with_client, receive)
            outcome = await self._outcome(self._result)
            if self._has_left:
                raise ClientLeft
            await outcome.answer().send(send)

    async def answer_with_events(self, receive: Receive, send: Send, keep_alive: float, *, streaming: bool) -> None:
        """Run the call and send its chunks, progress and outcome as events. Raises `ClientLeft`, as `answer` does."""
        outbox = Outbox()

        async def run() -> None:
            # A task of its own: a server may wait in `send` for a client that has left, and the call ends even so.
            outbox.finish(await self._outcome(lambda: self._feed(outbox) if streaming else self._result(outbox)))

        async with background_nursery() as nursery:
            nursery.start_soon(self._end_with_client, receive)
            nursery.start_soon(run)
            await send_events(outbox, send, keep_alive)
            if self._has_left:
                raise ClientLeft

    async def _end_with_client(self, receive: Receive) -> None:
        await until_left(receive)
        self._has_left = True
        self._scope.cancel()

    async def _outcome(self, work: Callable[[], Awaitable[Event]]) -> Event | Problem:
        try:
            with self._scope:
                return await work()
        except Exception as error:
            return problem_of(error)
        return closing_problem("the call was stopped, because the server closes")

    async def _result(self, outbox: Outbox | None = None) -> Event:
        on_progress = None if outbox is None else outbox.report
        value = await self._pool.execute(self._tool, self._args, on_progress=on_progress, **self._options)
        return Event("result", await text_of(value))

    async def _feed(self, outbox: Outbox) -> Event:
        # The pool notices that time is used up when a chunk is taken. A client that takes none must not keep a tool.
        time_up = trio.current_time() + self._seconds + _LATER
        stream = self._pool.stream(self._tool, self._args, on_progress=outbox.report, **self._options)
        number, is_late = 0, False
        async with stream as chunks:
            async for chunk in chunks:
                if not is_late:
                    with trio.move_on_at(time_up) as taking:
                        await outbox.put(Event("chunk", await text_of(chunk)))
                    is_late = taking.cancelled_caught
                    number += not is_late
        if is_late:  # the tool has ended in time, but the client has not taken all
            raise CallTimeout(f"{self._tool!r}: its chunks were not taken within {self._seconds:g} s")
        return Event("end", f'{{"chunks":{number}}}')
