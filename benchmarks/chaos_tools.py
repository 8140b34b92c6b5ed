"""Tools for `make chaos`: they work, and some end their worker."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

from bridge_py import BaseAdapter, tool


class Tools(BaseAdapter):
    """Work that can be checked, and ways to die."""

    @tool
    def work(self, token: int, seconds: float) -> int:
        """Take a while, and answer what only this call can."""
        time.sleep(seconds)
        return token * 7 + 1

    @tool
    def count(self, token: int, n: int) -> Iterator[int]:
        """Yield numbers that only this call can."""
        for number in range(n):
            yield token + number

    @tool
    def spin(self) -> None:
        """Never end."""
        while True:
            pass

    @tool
    def echo(self, data: bytes) -> bytes:
        """Give it back."""
        return data

    @tool
    def insist(self) -> None:
        """Never end, and swallow every interrupt."""
        while True:
            try:
                time.sleep(0.01)
            except BaseException:  # noqa: ASYNC103 - it is to be stopped by force
                continue  # noqa: ASYNC104 - as above

    @tool
    def exit(self) -> None:
        """End the process."""
        os._exit(3)

    @tool
    def exhaust(self) -> None:
        """Take all memory there is: 256 MiB more than now, so that the machine lives on."""
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        usual = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, usual[1]))
        hoard = []
        try:
            while True:
                hoard.append(bytearray(2**20))
        except MemoryError:
            os.abort()
        finally:
            # On a slow machine it may be cancelled first; then the worker serves on.
            resource.setrlimit(resource.RLIMIT_AS, usual)
