"""A plugin for pytest: pools as fixtures, a check for what tests leave behind, and a mark for slow tests.

Put `pytest_plugins = ["snakepit_trio.testing.pytest_plugin"]` into conftest.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, cast

import pytest

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.options import AdapterLike, PoolOptions
from snakepit_trio._pool.opening import open_pool
from snakepit_trio._pool.pool import Pool

from .extra import MissingPackage
from .leaks import LeakCheck
from .memory import InMemory

try:
    from pytest_trio import trio_fixture
except ModuleNotFoundError as error:
    if error.name != "pytest_trio":
        raise
    raise MissingPackage("pytest-trio") from None

_POOL_MARK: Final = (
    "snakepit(adapter=MyTools, real=False, **settings): the pool of the fixture snakepit_pool: settings of open_pool, "
    "and real=True for worker processes in place of workers in memory"
)
_SLOW_MARK: Final = "snakepit_slow: a slow test, which --snakepit-fast leaves out"
_NO_MARK: Final = (
    "{}: snakepit_pool does not know which tools to serve: write @pytest.mark.snakepit(adapter=MyTools, workers=2) "
    "above the test or its class, or pytestmark = pytest.mark.snakepit(adapter=MyTools) into its module"
)


class MarkOptions(PoolOptions, total=False):
    """The options of the mark `snakepit`: the settings of `open_pool`, and whether workers are processes."""

    adapters: Sequence[AdapterLike]
    real: bool


@pytest.fixture
def snakepit_settings(request: pytest.FixtureRequest) -> MarkOptions:
    """The settings that `snakepit_pool` gives to `open_pool`: from the marks `snakepit` of a test, class and module.

    The nearest mark counts. Override this fixture for settings that need another fixture. Raises `UsageError` if no
    mark names an adapter.
    """
    settings: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("snakepit"))):
        if len(mark.args) > 1:
            raise UsageError(f"{request.node.nodeid}: the mark snakepit takes one adapter, not {len(mark.args)}")
        settings |= mark.kwargs
        if mark.args:
            settings["adapter"] = mark.args[0]
    if not settings.keys() & {"adapter", "adapters"}:
        raise UsageError(_NO_MARK.format(request.node.nodeid))
    return cast("MarkOptions", settings)


@trio_fixture
async def snakepit_pool(snakepit_settings: MarkOptions) -> AsyncIterator[Pool]:
    """An open pool, as the marks `snakepit` say: by default with workers in memory, on the clock of the test.

    It is closed after the test, however the test has ended.
    """
    settings: dict[str, Any] = {**snakepit_settings}
    if not settings.pop("real", False):
        settings.setdefault("launcher", InMemory())
    async with open_pool(**settings) as pool:
        yield pool  # noqa: ASYNC119 - pytest-trio goes on with it


@pytest.fixture
def worker_leak_check() -> Iterator[LeakCheck]:
    """Fails a test that leaves a process, a file descriptor, a thread, or a file of a pool, and says what is left."""
    check = LeakCheck()
    yield check
    if left := check.left():
        pytest.fail("the test has left behind:\n" + "\n".join(f"  {line}" for line in left), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--snakepit-fast`."""
    group = parser.getgroup("snakepit")
    group.addoption("--snakepit-fast", action="store_true", help="leave out the tests that are marked snakepit_slow")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", _POOL_MARK)
    config.addinivalue_line("markers", _SLOW_MARK)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests if `--snakepit-fast` is given."""
    if not config.getoption("snakepit_fast"):
        return
    slow = [item for item in items if item.get_closest_marker("snakepit_slow")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)
