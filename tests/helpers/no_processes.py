"""A fixture for tests that start no process: a start fails, and so does its test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

_STARTS: Final = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
_TEXT: Final = (
    "a test of this folder starts no process, and this one does ({}): tests of tests/unit go to another folder of "
    "tests/, property tests get the mark `processes`"
)


class _Watch:
    """Python has no way to take an audit hook away again: so it is there all the time, and asks whether it counts."""

    def __init__(self) -> None:
        self.is_on = False
        self.tried: list[str] = []

    def refuse(self, event: str, _args: tuple[Any, ...]) -> None:
        if self.is_on and event in _STARTS:
            self.tried.append(event)
            raise RuntimeError(_TEXT.format(event))


_watch = _Watch()
sys.addaudithook(_watch.refuse)


@pytest.fixture(autouse=True)
def no_process_is_started(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse to start processes during a test, and fail it if it has tried, also where it takes that for a fault."""
    _watch.is_on = request.node.get_closest_marker("processes") is None
    yield
    _watch.is_on = False
    tried, _watch.tried = _watch.tried, []
    if tried:
        pytest.fail(_TEXT.format(", ".join(tried)), pytrace=False)
