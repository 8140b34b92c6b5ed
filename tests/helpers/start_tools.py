"""Adapters that cannot start, each in its way."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

from bridge_py import BaseAdapter, tool


class Starts(BaseAdapter):
    """Has one tool, so that it is an adapter; what it says when it is set up is up to those below."""

    @tool
    def one(self) -> int:
        """The number 1."""
        return 1


class Raises(Starts):
    """Raises at once."""

    def setup(self) -> None:
        """Raise."""
        raise ValueError("no database")


class LeavesThreads(Starts):
    """Raises while threads of its own run, which do not end."""

    def setup(self) -> None:
        """Raise."""
        threading.Thread(target=time.sleep, args=(1000,)).start()
        raise ValueError("no database")


class EndsSlowly(Starts):
    """Raises, and takes its time to end, which cuts its link long before."""

    def setup(self) -> None:
        """Raise."""
        atexit.register(time.sleep, 1.5)
        raise ValueError("no database")


class NeverEnds(Starts):
    """Raises, and does not end."""

    def setup(self) -> None:
        """Raise."""
        atexit.register(time.sleep, 1000)
        raise ValueError("no database")


class RaisesLater(Starts):
    """Raises in a coroutine."""

    async def setup(self) -> None:
        """Raise."""
        raise ValueError("no database")


class ExitsWithText(Starts):
    """Calls `sys.exit` with a text."""

    def setup(self) -> None:
        """Exit."""
        sys.exit("no licence")


class ExitsWithZero(Starts):
    """Calls `sys.exit(0)`."""

    def setup(self) -> None:
        """Exit."""
        sys.exit(0)


class Unspeakable(Starts):
    """Raises what cannot be shown."""

    def setup(self) -> None:
        """Raise."""

        class Silent(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        raise Silent


class SaysMuch(Starts):
    """Raises with more text than anybody reads, not all of which UTF-8 can hold."""

    def setup(self) -> None:
        """Raise."""
        raise ValueError("no \ud800 database " + "x" * 100_000)


class Interrupted(Starts):
    """Is interrupted."""

    def setup(self) -> None:
        """Raise."""
        raise KeyboardInterrupt


class ClosesAll(Starts):
    """Closes all descriptors, those of the link too, and goes on."""

    def setup(self) -> None:
        """Close and wait."""
        os.closerange(3, 1000)
        time.sleep(1000)


class Locked(Starts):
    """Cannot start while a file is there."""

    def __init__(self, path: str) -> None:
        self._path = path

    def setup(self) -> None:
        """Raise if the file is there."""
        if os.path.exists(self._path):
            raise RuntimeError("it is locked")

    @tool
    def die(self) -> None:
        """End the process."""
        os._exit(3)


class BrokenImport(BaseAdapter):
    """Cannot be made."""

    def __init__(self) -> None:
        print("reading the model", file=sys.stderr)
        raise RuntimeError("the model file is missing")


class SlowStart(BaseAdapter):
    """Takes too long."""

    def setup(self) -> None:
        """Sleep."""
        time.sleep(600)


class ExitsAtStart(BaseAdapter):
    """Ends with an exit code of its own."""

    def setup(self) -> None:
        """End."""
        print("no licence", file=sys.stderr, flush=True)
        os._exit(42)


class Polite(BaseAdapter):
    """Has a tool that is marked with what cannot be."""

    @tool(cancel="politely")  # type: ignore[call-overload]  # the word is what cannot be
    def stop_me(self) -> None:
        """Never runs."""
