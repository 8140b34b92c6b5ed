"""Hypothesis' rule-based state machines whose rules are coroutines of trio, with a pool open.

    class Doubling(PoolMachine):
        adapter = Tools

        @rule(n=st.integers())
        async def double(self, n):
            assert await self.pool.execute("double", {"n": n}) == 2 * n

    TestDoubling = Doubling.TestCase

Between two rules trio stands still: no task runs and no time passes, so that what happens depends on the rules alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Any, ClassVar, TypeVar

import greenlet
import outcome
import trio
import trio.testing

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import Launcher
from snakepit_trio._config.options import AdapterLike, PoolOptions
from snakepit_trio._pool.opening import open_pool
from snakepit_trio._pool.pool import Pool
from snakepit_trio._util.nurseries import background_nursery

from .extra import MissingPackage
from .memory import InMemory
from .replay import seeded, translated, watch

try:
    from hypothesis import stateful
except ModuleNotFoundError as error:
    raise MissingPackage(error.name or "hypothesis") from None

__all__ = ["PoolMachine", "TrioMachine", "initialize", "invariant", "rule"]

F = TypeVar("F", bound=Callable[..., Any])
Step = Callable[[], Awaitable[Any]]


def rule(**options: Any) -> Callable[[F], F]:
    """Hypothesis' `rule`, for a coroutine function or a plain function. It runs in the machine's trio run."""
    return _decorator(stateful.rule(**options))


def initialize(**options: Any) -> Callable[[F], F]:
    """Hypothesis' `initialize`, for a coroutine function or a plain function. It runs in the machine's trio run.

    It runs when `opened` has been entered. For what `opened` must know already, use Hypothesis' own `initialize`.
    """
    return _decorator(stateful.initialize(**options))


def invariant(**options: Any) -> Callable[[F], F]:
    """Hypothesis' `invariant`, for a coroutine function or a plain function. It runs in the machine's trio run."""
    return _decorator(stateful.invariant(**options))


class TrioMachine(stateful.RuleBasedStateMachine):
    """A machine whose rules run in one trio run, in the block of `opened`.

    A rule that raises is a failure, as with Hypothesis. A rule that takes more than `step_limit` seconds is a failure
    too, and so is an error of a task in `nursery`. Take `precondition`, `Bundle` and the rest from Hypothesis.
    """

    #: Whether time jumps when all tasks wait. False is for real processes.
    autojump: ClassVar[bool] = True
    #: Seconds of trio's clock after which one step counts as hanging: `trio.TooSlowError`.
    step_limit: ClassVar[float] = 1_000.0
    #: Seconds of trio's clock after which the whole run counts as hanging, even where it is shielded: `Hanging`.
    limit: ClassVar[float] = 20_000.0
    #: For background tasks. They are cancelled at the end.
    nursery: trio.Nursery

    def __init__(self) -> None:
        super().__init__()
        self._run = greenlet.greenlet(self._run_trio)
        self._is_begun = self._has_failed = False

    def opened(self) -> AbstractAsyncContextManager[object]:
        """A context manager that is open while the rules run. Override it."""
        return trio.open_nursery()

    async def closing(self) -> None:
        """Called at the end, before `opened` is left, unless a step has failed. Override it."""

    async def closed(self) -> None:
        """Called after `opened` was left, in the same trio run, unless a step has failed.

        Override it to check that nothing is left.
        """

    def teardown(self) -> None:
        """End the trio run. Called by Hypothesis."""
        if self._is_begun and not self._run.dead:
            self._run.switch(None)

    def _do(self, step: Step) -> Any:
        """Run one step. trio stands still before it and after it, because its run is in a greenlet of its own."""
        if not self._is_begun:
            self._is_begun = True
            self._run.switch()
        if self._run.dead:
            raise UsageError("the trio run of this machine has ended, by what was raised before")
        return self._run.switch(step).unwrap()

    def _run_trio(self) -> None:
        with ExitStack() as stack:
            clock = None
            if self.autojump:
                clock = trio.testing.MockClock(autojump_threshold=0)
                stack.enter_context(seeded(0))
            stack.enter_context(translated())
            trio.run(self._main, clock=clock)

    async def _main(self) -> None:
        trio.lowlevel.spawn_system_task(watch, self.limit)
        async with self.opened(), background_nursery() as self.nursery:
            await self._take_steps()
            if not self._has_failed:
                await self.closing()
        if not self._has_failed:
            await self.closed()

    async def _take_steps(self) -> None:
        answer: outcome.Maybe[Any] | None = None
        parent = self._run.parent
        assert parent is not None
        while (step := parent.switch(answer)) is not None:
            try:
                with trio.fail_after(self.step_limit):
                    answer = outcome.Value(await step())
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: ASYNC103 - raised where the step was asked for
                self._has_failed = True
                answer = outcome.Error(error)


class PoolMachine(TrioMachine):
    """A machine with an open pool, in memory by default. Set `adapter`, and whatever else is to differ.

    For real processes let `make_launcher` return None, and set `autojump` to False.
    """

    adapter: ClassVar[AdapterLike]
    #: Settings of `open_pool`.
    pool_settings: PoolOptions = PoolOptions()
    pool: Pool
    #: The launcher that `make_launcher` has made.
    launcher: Any

    def make_launcher(self) -> Launcher | None:
        """Make the launcher of the pool; None is for real processes."""
        return InMemory()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        self.launcher = self.make_launcher()
        settings: dict[str, Any] = {**self.pool_settings}
        async with open_pool(self.adapter, launcher=self.launcher, **settings) as self.pool:
            yield


def _decorator(decorate: Any) -> Callable[[F], F]:
    def decorated(function: F) -> F:
        found: F = decorate(_step(function))
        return found

    return decorated


def _step(function: F) -> F:
    @functools.wraps(function)
    def step(machine: TrioMachine, *args: Any, **options: Any) -> Any:
        async def run() -> Any:
            found = function(machine, *args, **options)
            return await found if inspect.isawaitable(found) else found

        return machine._do(run)

    return step  # type: ignore[return-value]  # a plain function in place of a coroutine function
