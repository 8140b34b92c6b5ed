"""Server-sent events: their form, and the way of one call's events to a client that may be slow."""

from __future__ import annotations

import re
from typing import Final

import attrs
import trio

from snakepit_trio._calls.progress import Progress
from snakepit_trio._util.changes import Changes

from .asgi import EVENTS, Answer, Send, send_part, start
from .json_values import to_json
from .problems import Problem

_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")
KEEP_ALIVE: Final = b": keep-alive\n\n"
#: nginx, and proxies that follow it, would else hold events back.
EVENT_HEADERS: Final = (("content-type", EVENTS), ("x-accel-buffering", "no"))


@attrs.frozen
class Event:
    """One event. `data` is text; JSON is on one line, other text may have several."""

    name: str
    data: str

    def encode(self, number: int) -> bytes:
        """The event as bytes, with its number as its id."""
        lines = "".join(f"data: {line}\n" for line in _LINE_ENDS.split(self.data))
        return f"event: {self.name}\nid: {number}\n{lines}\n".encode()

    def answer(self) -> Answer:
        """The data of the event as a whole response."""
        return Answer(200, self.data.encode())


class Outbox:
    """Hands the events of one call to the task that sends them, one at a time.

    So a slow client holds up the call: one event is being sent, one waits here, and the tool is ahead by no more than
    its credit. Progress that the client has not taken yet is replaced by later progress.
    """

    def __init__(self) -> None:
        self._event: Event | None = None
        self._progress: Progress | None = None
        self._last: Event | Problem | None = None
        self._changes = Changes()

    async def put(self, event: Event) -> None:
        """Wait until the event before has been taken, then leave this one. Cancelling leaves nothing."""
        while self._event is not None:
            await self._changes.wait()
        self._event = event
        self._changes.notify()

    def report(self, progress: Progress) -> None:
        """Note the latest progress."""
        self._progress = progress
        self._changes.notify()

    def finish(self, last: Event | Problem) -> None:
        """Leave the last event, or the problem that ends the call. Does not wait: it comes after all others."""
        self._last = last
        self._changes.notify()

    async def take(self) -> Event | Problem:
        """Wait for the next event, or for the problem that ended the call, and take it. Cancelling takes nothing."""
        while (item := self._next()) is None:
            await self._changes.wait()
        self._changes.notify()
        return item

    def _next(self) -> Event | Problem | None:
        if self._progress is not None:
            progress, self._progress = self._progress, None
            # A tool may report a total that is infinite, which JSON cannot hold: it becomes null.
            return Event("progress", to_json(attrs.asdict(progress)).decode())
        if self._event is not None:
            event, self._event = self._event, None
            return event
        return self._last

    def is_last(self, item: Event | Problem) -> bool:
        """Whether nothing comes after that."""
        return item is self._last


async def send_events(outbox: Outbox, send: Send, keep_alive: float) -> None:
    """Send events until the last one has gone.

    A call that fails before its first event is answered as if there were no events: with a status and problem+json. A
    comment is sent whenever nothing was sent for `keep_alive` seconds, so that nobody on the way takes the connection
    for dead. Raises `ClientLeft`.
    """
    number, has_begun = 0, False
    while True:
        item: Event | Problem | None = None
        with trio.move_on_after(keep_alive):
            item = await outbox.take()
        if not has_begun:
            if isinstance(item, Problem):
                await item.answer().send(send)
                return
            await start(send, 200, EVENT_HEADERS)
            has_begun = True
        if item is None:
            await send_part(send, KEEP_ALIVE, more=True)
            continue
        number += 1
        is_last = outbox.is_last(item)
        event = Event("error", item.body().decode()) if isinstance(item, Problem) else item
        await send_part(send, event.encode(number), more=not is_last)
        if is_last:
            return
