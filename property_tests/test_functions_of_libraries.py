"""Property: a function gives in a worker what it gives in this process, or raises the same exception."""

from __future__ import annotations

import copy
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import attrs
import numpy as np
import outcome
import pytest
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py.wire import codec
from bridge_py.wire.raised import describe, rebuild

from .library_functions import CASES, Case, junk, plain_junk
from .same_values import same

pytestmark = pytest.mark.processes
# There are many functions, and so each gets a part of the examples that other properties get.
FEW: Final = settings(
    deadline=None, max_examples=max(4, settings().max_examples // 25), suppress_health_check=list(HealthCheck)
)
_MOST: Final = 20  # values of those that never end
_MOST_TRIES: Final = 40  # with right arguments, until one gives a value


@attrs.frozen
class _Worker:
    """A pool of one worker in another thread, for tests that are no coroutines."""

    pool: snakepit.Pool
    token: trio.lowlevel.TrioToken

    def call(self, case: Case, args: list[Any], kwargs: dict[str, Any]) -> outcome.Maybe[Any]:
        run = self._values if case.streams else self.pool.run
        return outcome.capture(
            trio.from_thread.run, partial(run, case.function, *args, **kwargs), trio_token=self.token
        )

    async def _values(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        found: list[Any] = []
        async with self.pool.iterate(function, *args, **kwargs) as values:
            async for value in values:
                found.append(value)
                if len(found) == _MOST:
                    break
        return found


@pytest.fixture(scope="module")
def worker() -> Iterator[_Worker]:
    ready, over = threading.Event(), trio.Event()
    opened: list[_Worker] = []

    async def main() -> None:
        try:
            async with snakepit.open_pool(workers=1) as pool:
                opened.append(_Worker(pool, trio.lowlevel.current_trio_token()))
                ready.set()
                await over.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    ready.wait()
    yield opened[0]
    opened[0].token.run_sync_soon(over.set)
    thread.join()


def _here(case: Case, args: list[Any], kwargs: dict[str, Any]) -> outcome.Maybe[Any]:
    """What a function gives in this process. It may change its arguments, so it gets copies."""
    args, kwargs = copy.deepcopy((args, kwargs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: outcome.Maybe[Any] = outcome.capture(case.function, *args, **kwargs)
        if not case.streams or isinstance(found, outcome.Error):
            return found
        return outcome.capture(lambda: list(itertools.islice(found.unwrap(), _MOST)))


def _can_be_sent(value: Any) -> bool:
    return isinstance(outcome.capture(codec.encode, codec.Exact(value)), outcome.Value)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and one.dtype.kind in "fc":
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    if isinstance(one, tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(_is_same, one, other))
    return same(one, other)


def _check(here: outcome.Maybe[Any], there: outcome.Maybe[Any]) -> str:
    """Compare what came from the worker; return what it was."""
    if isinstance(here, outcome.Value):
        if not _can_be_sent(here.value):
            assert isinstance(there, outcome.Error)
            assert "cannot be sent" in str(there.error) or "nested" in str(there.error)
            return "refused"
        assert _is_same(here.value, there.unwrap())
        return "value"
    assert isinstance(there, outcome.Error), there
    error, found = here.error, there.error
    if rebuild(describe(error)) is None:  # its arguments cannot be sent
        assert type(found) is snakepit.ToolError
        assert found.type.endswith(type(error).__qualname__)
        return "told"
    assert type(found) is type(error), found
    assert str(found) == str(error)
    assert found.args == error.args or repr(found.args) == repr(error.args)
    assert isinstance(found.__cause__, snakepit.ToolError)
    return "exception"


@pytest.mark.parametrize("name", CASES)
def test_a_function_gives_what_it_gives_here(worker: _Worker, name: str) -> None:
    case, outcomes = CASES[name], set[str | None]()

    @FEW
    @given(data=st.data(), how=st.sampled_from(["right", "right", "right", "wrong", "fewer", "more"]))
    def gives(data: st.DataObject, how: str) -> None:
        outcomes.add(_tried(worker, case, *_arguments(case, data, how)))

    @settings(FEW, max_examples=_MOST_TRIES)
    @given(data=st.data())
    def gives_a_value(data: st.DataObject) -> None:
        args, kwargs = _arguments(case, data, "right")
        if "value" not in outcomes:
            outcomes.add(_tried(worker, case, args, kwargs))

    gives()
    gives_a_value()
    assert "value" in outcomes


def _arguments(case: Case, data: st.DataObject, how: str) -> tuple[list[Any], dict[str, Any]]:
    args = [data.draw(each) for each in case.args]
    kwargs = {key: data.draw(each) for key, each in case.kwargs.items()}
    if how == "wrong" and args:
        args[data.draw(st.integers(0, len(args) - 1))] = data.draw(junk)
    elif how == "fewer":
        args = args[:-1]
    elif how == "more":
        args.append(data.draw(plain_junk))
    return args, kwargs


def _tried(worker: _Worker, case: Case, args: list[Any], kwargs: dict[str, Any]) -> str | None:
    """Call a function here and there; return what came. None for arguments that cannot be sent."""
    if not _can_be_sent([args, kwargs]):
        return None
    found = _check(_here(case, args, kwargs), worker.call(case, args, kwargs))
    event(found)
    return found


def test_the_table_has_more_than_two_hundred_functions() -> None:
    assert len({case.function for case in CASES.values()}) > 200
