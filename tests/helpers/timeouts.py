"""A test that takes too long fails, and takes no other test's result with it: a plugin of pytest.

pytest-timeout has two ways. Its thread ends the whole process: coverage and the tests that were to follow there are
lost. Its signal raises in the midst of trio's loop, after which no test of the process can run trio any more. So this
sets the timer of pytest-timeout in a third way: trio's tasks are cancelled, whatever shields them, and end.
"""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
from types import FrameType
from typing import Any, Final, Never

import psutil
import pytest
import pytest_timeout
import trio

from snakepit_trio.testing.replay import _places, _unshield

_AGAIN: Final = 20.0  # seconds that a test has to end, until it is interrupted again
_MOST: Final = 3  # times; a program that still runs then is one that no Python code can end


class TooLong(BaseException):
    """A test has taken too long. Hypothesis would look for a smaller example that raises an `Exception`."""


class Timer:
    """Interrupts one test after `seconds`, and again if it goes on."""

    def __init__(self, item: pytest.Item, seconds: float) -> None:
        self._item = item
        self._seconds = seconds
        self._times = 0
        self._replaced = signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        faulthandler.dump_traceback_later(seconds + (_MOST + 1) * _AGAIN, exit=True, file=sys.__stderr__ or sys.stderr)

    def cancel(self) -> None:
        """The test has ended."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._replaced)
        faulthandler.cancel_dump_traceback_later()
        if self._times:
            gc.collect()  # what the interrupted code leaves must not be found, and blamed, in the next test

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._times += 1
        text = f"the test has not ended after {self._seconds:g} s"
        if self._times == 1:
            pytest_timeout.dump_stacks(self._item.config.get_terminal_writer())
        else:
            _kill_descendants()  # it may wait for one of them
        try:
            token = trio.lowlevel.current_trio_token()
        except RuntimeError:
            raise TooLong(text) from None
        token.run_sync_soon(_end_run, text)


def _end_run(text: str) -> None:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    text = "\n".join([f"{text}; its tasks wait:", *_places(root, "  ")])
    _unshield(root)
    trio.lowlevel.spawn_system_task(_fail, text)


async def _fail(text: str) -> Never:
    # trio cancels the rest of a run in which a system task has failed, waits for it, and raises.
    raise TooLong(text)


def _kill_descendants() -> None:
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: Any, settings: pytest_timeout.Settings) -> bool:
    """Set the timer of a test; pytest-timeout calls `cancel_timeout` when it is over."""
    item.cancel_timeout = Timer(item, settings.timeout).cancel
    return True
