"""A whole pool in memory, and what happens to it, all by a seed. What must hold is asserted as it goes.

Workers die, hang, are slow, send garbage and do not start; calls nest, stream, time out, are cancelled and run again;
variables change; workers are replaced, added and retired; pools are closed over running calls.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import trio

import snakepit_trio as snakepit
from snakepit_trio import testing
from snakepit_trio.testing import InMemory
from snakepit_trio.testing.faults import Direction

from .pool_tools import LINGER, Tools

FOR_EVER = 150.0  # seconds of a clock that jumps: whatever is not over by then hangs
ITEMS = 20  # more than may be under way
#: What a call may end with when workers misbehave, or when its pool is closed.
TOLERATED = (
    snakepit.WorkerCrashed,
    snakepit.CallTimeout,
    snakepit.HostToolError,
    snakepit.PoolClosed,
    snakepit.RemoteError,
)


class Scenario:
    """What happens, by a seed. `tolerant=False`: nothing goes wrong, so that nothing may fail."""

    def __init__(self, seed: int, *, faults: bool = True) -> None:
        self.random = random.Random(seed)
        self.tokens = itertools.count(1)
        self.hosting = 0
        self.kills = 0
        self.written = 0
        self.wants_faults = faults
        self.faults = testing.Faults(*self._draw_faults())
        self.launcher = InMemory(self.faults)
        self.story: list[tuple[Any, ...]] = []
        self.pool: snakepit.Pool
        self.session: snakepit.SessionHandle

    def _draw_faults(self) -> Iterator[testing.Fault]:
        rnd = self.random
        for _ in range(rnd.choice([0, 1, 1, 2, 3]) if self.wants_faults else 0):
            skip = rnd.randint(0, 12)
            direction: Direction = "to_host" if rnd.random() < 0.5 else "to_worker"
            # The pool's own first workers start, or there would be no pool.
            yield rnd.choice(
                [
                    testing.RefuseStart(how=rnd.choice(["launch", "exit", "hang"]), skip=3 + skip // 4),
                    testing.Die(
                        when=rnd.choice(["before", "during", "after"]), after=rnd.choice([0, 0.3]), skip=skip // 4
                    ),
                    testing.IgnoreCancel(),
                    testing.Slow(direction=direction, seconds=rnd.choice([0.05, 3]), skip=skip + 3),
                    testing.Split(direction=direction, seconds=rnd.choice([0, 0.01]), skip=skip, times=None),
                    testing.Silence(direction=direction, skip=skip + 3),
                    testing.Cut(direction=direction, at=rnd.random(), skip=skip + 3),
                    testing.Garbage(direction=direction, data=b"\xff" * 10 + rnd.randbytes(6), skip=skip + 3),
                ]
            )

    async def run(self) -> None:
        """All of it."""
        Tools.running.clear()
        Tools.started.clear()
        choose = self.random.choice
        is_left_early = self.is_left_early = choose([False, False, True])
        async with trio.open_nursery() as calls, self._open() as pool, pool.session() as self.session:
            self.pool = pool
            pool.expose(self.host)
            pool.expose(self.items)
            await self.session.register_variable("n", "integer", 0)
            async with trio.open_nursery() as others:
                others.start_soon(self._disturb)
                async with trio.open_nursery() as nursery:
                    for _ in range(self.random.randint(1, 6)):
                        (calls if is_left_early else nursery).start_soon(self._call)
                await trio.sleep(self.random.random() if is_left_early else 0)
                others.cancel_scope.cancel()
            if not is_left_early:
                await self._check_heals()
        assert self.launcher.workers() == [], "no worker outlives its pool"
        assert not Tools.running, "no code outlives its pool"
        assert self.hosting == 0, "no host tool outlives its pool"

    def _open(self) -> Any:
        choose = self.random.choice
        return snakepit.open_pool(
            Tools,
            launcher=self.launcher,
            workers=self.random.randint(1, 3),
            concurrency=choose([1, 1, 2]),
            send_ahead=choose([0, 32]),
            stream_window=choose([1, 2, 8]),
            ping_interval=choose([1.0, 5.0]),
            shutdown_timeout=choose([0.1, 0.1, 6.0]),
            start_timeout=5.0,
            quarantine=1.0,
            recycle=snakepit.RecyclePolicy(calls=choose([None, None, 2])),
            taint_after=1000,  # it is not the calls that kill them
        )

    async def _check_heals(self) -> None:
        stats = self.pool.get_stats()
        assert (self.hosting, stats.running, stats.queued) == (0, 0, 0), f"something is left: {stats}"
        await self.pool.await_ready(60)
        if not self.faults.faults:
            token = next(self.tokens)
            assert await self.pool.execute("nap", {"token": token, "seconds": 0.0}) == token
        # Each restart has a reason: nobody's worker is killed to stop a call that would have stopped.
        most = self.kills + len(self.faults.happened)
        assert stats.restarts <= most, f"{stats.restarts} restarts, and {most} reasons for one"

    # What the host does for workers.

    async def host(self) -> int:
        """A host tool that may call the pool again."""
        self.hosting += 1
        try:
            await trio.sleep(self.random.random())
            if self.random.random() < 0.6:
                await self._ask()
            return 1
        finally:
            self.hosting -= 1

    async def items(self) -> AsyncIterator[int]:
        """A host tool that streams."""
        self.hosting += 1
        try:
            for number in range(ITEMS):
                await trio.sleep(0.01 if number % 6 == 0 else 0)
                yield number
        finally:
            self.hosting -= 1

    # Calls.

    async def _call(self) -> None:
        kind = self.random.choice([self._ask, self._nap, self._stream, self._take, self._read])
        began = trio.current_time()
        how = "cancelled"
        with trio.move_on_after(self.random.choice([0.1, 1, 3, 100])):
            try:
                await kind()
                how = "returned"
            except TOLERATED as error:
                how = type(error).__name__
                late = isinstance(error, snakepit.CallTimeout) and kind in (self._stream, self._take)
                assert not late or self.faults.happened, "a stream has stopped"
            except snakepit.SessionNotFound:
                how = "SessionNotFound"
                assert self.is_left_early, "sessions end with their block"
            except snakepit.ToolError as error:
                how = type(error).__name__
                assert self._went_on(), "no tool raises by itself"
        self.story.append((kind.__name__, how, began, trio.current_time()))

    def _went_on(self) -> bool:
        """Whether a call was cancelled and went on: then it may find that its host tools have been stopped."""
        return any(isinstance(each.fault, testing.IgnoreCancel) for each in self.faults.happened)

    async def _execute(
        self, name: str, timeout: float | None, retries: int = 0, session: bool = False, **args: Any
    ) -> Any:
        token, began = next(self.tokens), trio.current_time()
        execute = self.session.execute if session else self.pool.execute
        try:
            return await execute(name, {"token": token, **args}, timeout=timeout, retries=retries)
        finally:
            self._is_over(name, token, retries)
            if timeout is not None:
                slack = 10 if self.faults.faults or self.kills else LINGER + 0.01
                took, most = trio.current_time() - began, timeout + slack
                assert took <= most, f"{name} took {took:.2f} s, and had {timeout} s"

    def _is_over(self, name: str, token: int, retries: int) -> None:
        assert token not in Tools.running, f"{name} is over, and its code runs"
        assert Tools.started[token] <= 1 + retries, f"{name} was started {Tools.started[token]} times"

    async def _ask(self) -> None:
        how, timeout = self.random.choice(["ask", "ask_async"]), self.random.choice([0.5, 5, None])
        assert await self._execute(how, timeout) == 1

    async def _nap(self) -> None:
        how, timeout = self.random.choice(["nap", "linger"]), self.random.choice([0.5, 5])
        assert await self._execute(how, timeout, self.random.choice([0, 2]), seconds=self.random.random() * 2)

    async def _take(self) -> None:
        assert await self._execute("take", 5) == sum(range(ITEMS))

    async def _read(self) -> None:
        for _ in range(3):
            known = self.written
            found = await self._execute("read", 5, session=True)
            assert known <= found <= self.written, f"read {found}: {known} was written before, {self.written} by now"
            await self.session.update_variable("n", self.written + 1)
            self.written += 1

    async def _stream(self) -> None:
        token, taken, n = next(self.tokens), 0, self.random.randint(0, 30)
        name = self.random.choice(["count", "tick"])
        leaves = self.random.random() < 0.3
        try:
            async with self.pool.stream(name, {"token": token, "n": n}, timeout=50) as chunks:
                async for chunk in chunks:
                    assert chunk == taken, f"chunk {chunk} came in place of {taken}"
                    taken += 1
                    if leaves and taken > n // 2:
                        return
        finally:
            self._is_over(name, token, 0)
        assert taken == n, f"{taken} of {n} chunks came"

    # What others do to it.

    async def _disturb(self) -> None:
        for _ in range(self.random.randint(0, 4)):
            await trio.sleep(self.random.random() * 2)
            disturbance: Callable[[], Any] = self.random.choice([self._kill, self._kill, self._resize, self._renew])
            with contextlib.suppress(snakepit.WorkerStartError, snakepit.PoolClosed):
                await disturbance()

    async def _kill(self) -> None:
        if living := self.launcher.workers():
            self.kills += 1
            self.launcher.kill(self.random.choice(living))

    async def _resize(self) -> None:
        await self.pool.resize(self.random.randint(1, 3))

    async def _renew(self) -> None:
        workers = self.pool.list_workers()
        assert workers, "each worker that ends is replaced"
        with trio.move_on_after(5):
            await self.pool.workers.restart(self.random.choice(workers).id)
