"""Guards against use in the wrong run of trio, or by two tasks at a time."""

from __future__ import annotations

from types import TracebackType
from typing import Final, NoReturn

import trio

from bridge_py.wire.errors import UsageError

_NO_TRIO: Final = (
    "snakepit-trio runs in trio, and this code does not: call trio.run(main); in a program of asyncio, run it in a"
    " thread with trio.run, or use trio-asyncio or trio's guest mode"
)


def no_trio() -> UsageError:
    """Make the error of code that does not run in trio."""
    return UsageError(_NO_TRIO)


def require_trio() -> None:
    """Raise `UsageError`, which says what to do, unless a task of trio calls this."""
    if not trio.lowlevel.in_trio_task():
        raise no_trio()


class OneTaker:
    """Lets one task at a time into a `with` block. A second one gets `trio.BusyResourceError`."""

    __slots__ = ("_what", "is_taken")

    def __init__(self, what: str) -> None:
        self._what = what
        self.is_taken = False

    def __enter__(self) -> None:
        if self.is_taken:
            raise trio.BusyResourceError(f"another task takes from this {self._what}: give each task one of its own")
        self.is_taken = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_taken = False
        if isinstance(error, Exception) and not trio.lowlevel.in_trio_task():
            raise no_trio() from None


class OneRun:
    """The run of trio in which something was made."""

    def __init__(self) -> None:
        self.token: Final = trio.lowlevel.current_trio_token()

    def refuse(self, what: str = "pool", method: str = "execute") -> NoReturn:
        """Raise `UsageError`, because the caller is in another run, which has another token."""
        raise UsageError(
            f"this {what} was opened in another trio.run: call it there; from a thread of that run by"
            f" trio.from_thread.run({what}.{method}, ...), or open a {what} in this run"
        )
