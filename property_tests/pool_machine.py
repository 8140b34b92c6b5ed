"""A machine that uses a pool and disturbs it, in memory or with real processes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import psutil
import trio
from hypothesis import stateful
from hypothesis import strategies as st

import snakepit_trio as snakepit
from snakepit_trio.testing import Faults, IgnoreCancel, InMemory
from snakepit_trio.testing.machines import PoolMachine, invariant, rule
from snakepit_trio.testing.strategies import fault_plans

from .pool_tools import FOLDER_VARIABLE, RealTools, Tools
from .scenarios import TOLERATED


@attrs.define(eq=False)
class Call:
    """One that has been made."""

    name: str
    token: int
    retries: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)


class Machine(PoolMachine):
    """Calls of all kinds, cancelled or not, while workers die, come, go and misbehave."""

    adapter = Tools
    pace: ClassVar[float] = 1.0  # of what the rules say in seconds
    calls = stateful.Bundle("calls")

    @stateful.initialize(
        settings=st.fixed_dictionaries(
            {
                "workers": st.integers(1, 3),
                "spares": st.integers(0, 2),
                "concurrency": st.integers(1, 2),
                "send_ahead": st.sampled_from([0, 32]),
                "stream_window": st.sampled_from([1, 2, 8]),
            }
        ),
        plan=fault_plans(spared_starts=3),
    )
    def begin(self, settings: snakepit.PoolOptions, plan: Faults) -> None:
        self.pool_settings = {**settings, "taint_after": 1000, "start_timeout": 20.0, "quarantine": 1.0}
        self.faults = plan
        self.made: list[Call] = []
        self.hosting = 0
        self.deaths = 0
        self.forget()

    def forget(self) -> None:
        Tools.running.clear()
        Tools.started.clear()

    def make_launcher(self) -> InMemory | None:
        return InMemory(self.faults)

    def is_running(self, token: int) -> bool:
        return token in Tools.running

    def starts(self, token: int) -> int:
        return Tools.started[token]

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        async with super().opened():
            self.pool.expose(self.host)
            self.pool.expose(self.items)
            yield

    # Rules.

    @rule(
        target=calls,
        name=st.sampled_from(["nap", "linger", "ask", "ask_async", "take", "count", "tick"]),
        timeout=st.sampled_from([0.2, 2, 60]),
        retries=st.sampled_from([0, 0, 2]),
        n=st.integers(0, 20),
    )
    async def call(self, name: str, timeout: float, retries: int, n: int) -> Call:
        call = Call(name, len(self.made), retries)
        self.made.append(call)
        self.nursery.start_soon(self._carry_out, call, timeout * max(self.pace, 0.1), n)
        return call

    @rule(call=calls)
    async def cancel(self, call: Call) -> None:
        call.scope.cancel()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2, 30]))
    async def time_passes(self, seconds: float) -> None:
        await trio.sleep(seconds * self.pace)

    @rule(which=st.integers(0, 4))
    async def kill(self, which: int) -> None:
        living = self.living()
        if which < len(living):
            self.deaths += 1
            self.end(living[which])

    @rule(workers=st.integers(1, 3))
    async def resize(self, workers: int) -> None:
        with contextlib.suppress(snakepit.WorkerStartError):
            await self.pool.resize(workers)

    @rule(which=st.integers(0, 4))
    async def renew(self, which: int) -> None:
        workers = self.pool.list_workers()
        if which < len(workers):
            with trio.move_on_after(5), contextlib.suppress(snakepit.WorkerStartError):
                await self.pool.workers.restart(workers[which].id)

    @rule(patience=st.sampled_from([0.1, 5, 30]))
    async def reload(self, patience: float) -> None:
        await self._reload(patience)

    @rule(patience=st.sampled_from([0.1, 5, 30]))
    async def reload_beside(self, patience: float) -> None:
        self.nursery.start_soon(self._reload, patience)

    @invariant()
    async def what_is_over_is_over(self) -> None:
        for call in self.made:
            if call.over.is_set():
                assert not self.is_running(call.token), f"{call.name} is over, and its code runs"
                assert self.starts(call.token) <= 1 + call.retries

    async def closing(self) -> None:
        with trio.fail_after(200):
            for call in self.made:
                await call.over.wait()
        stats = self.pool.get_stats()
        assert (stats.running, stats.queued, self.hosting) == (0, 0, 0)
        await self.pool.await_ready(60)
        with trio.fail_after(60):
            while self.pool.get_stats().spares < self.pool.config.spares:
                await self.pool._dispatcher.workers_changed.wait()
        assert stats.restarts <= self.deaths + len(self.faults.happened)
        if not self.deaths and not self.faults.happened:
            assert stats.crashed == 0

    async def closed(self) -> None:
        assert self.living() == []
        assert not any(self.is_running(call.token) for call in self.made)
        assert self.hosting == 0

    # How.

    async def _reload(self, patience: float) -> None:
        with (
            trio.move_on_after(patience * max(self.pace, 0.5)),
            contextlib.suppress(snakepit.WorkerStartError, snakepit.PoolClosed),
        ):
            await self.pool.reload()

    def living(self) -> list[Any]:
        return list(self.launcher.workers())

    def end(self, worker: Any) -> None:
        self.launcher.kill(worker)

    async def host(self) -> int:
        self.hosting += 1
        try:
            await trio.sleep(0.3 * self.pace)
            await self.pool.execute("nap", {"token": -1, "seconds": 0.01})
            return 1
        finally:
            self.hosting -= 1

    async def items(self) -> Any:
        self.hosting += 1
        try:
            for number in range(20):
                await trio.sleep(0.01 * self.pace)
                yield number
        finally:
            self.hosting -= 1

    async def _carry_out(self, call: Call, timeout: float, n: int) -> None:
        args = {"token": call.token}
        if call.name in ("nap", "linger"):
            args["seconds"] = n / 10 * self.pace  # type: ignore[assignment]
        try:
            with call.scope:
                if call.name in ("count", "tick"):
                    call.retries = 0
                    await self._stream(call, timeout, n)
                else:
                    found = await self.pool.execute(call.name, args, timeout=timeout, retries=call.retries)
                    assert found == {"take": 190, "ask": 1, "ask_async": 1}.get(call.name, call.token)
        except TOLERATED:
            pass
        except snakepit.ToolError:
            assert any(isinstance(each.fault, IgnoreCancel) for each in self.faults.happened)
        call.over.set()

    async def _stream(self, call: Call, timeout: float, n: int) -> None:
        found = []
        async with self.pool.stream(call.name, {"token": call.token, "n": n}, timeout=timeout) as chunks:
            async for chunk in chunks:
                found.append(chunk)
                if n % 5 == 4 and chunk > n // 2:
                    return
        assert found == list(range(n))


class RealMachine(Machine):
    """The same with real worker processes. Workers are killed by SIGKILL; other faults there are none."""

    adapter = RealTools
    autojump = False
    pace = 0.05
    step_limit = 60.0
    limit = 100.0

    def forget(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.faults = Faults()
        self.pool_settings = {**self.pool_settings, "env": {FOLDER_VARIABLE: self.folder.name}}

    def make_launcher(self) -> None:
        return None

    def is_running(self, token: int) -> bool:
        path = Path(self.folder.name, str(token))
        if not path.exists() or path.with_suffix(".over").exists():
            return False
        return any(psutil.pid_exists(int(pid)) for pid in path.read_text().split())

    def starts(self, token: int) -> int:
        path = Path(self.folder.name, str(token))
        return len(path.read_text().split()) if path.exists() else 0

    def living(self) -> list[Any]:
        return [each.pid for each in self.pool.list_workers() if each.pid is not None]

    def end(self, worker: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, 9)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.folder.cleanup()
