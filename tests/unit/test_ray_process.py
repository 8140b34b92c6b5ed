"""The process that speaks with Ray, with a Ray that is fake: requests, answers, and the ends of actors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from snakepit_trio.launchers.ray_process import LENGTH, Driver


class FakeRay:
    """Makes actors that note what they are told. The actor of the order b"never" is never placed."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def remote(self, kind: type) -> Any:
        self.told.append(kind.__name__)
        return self

    def options(self, **options: Any) -> Any:
        self.told.append(options)
        return _Bound(self._make)

    def _make(self) -> Any:
        return FakeActor(self)

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        self.told.append(("kill", no_restart))

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0}

    def available_resources(self) -> dict[str, float]:
        raise ConnectionError("the head is away")


class _Bound:
    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class FakeActor:
    def __init__(self, ray: FakeRay) -> None:
        self.start, self.signal, self.wait = _Bound(self._start), _Bound(self._signal), _Bound(self._wait)
        self._ray = ray

    async def _start(self, version: str, order: bytes) -> Any:
        if order == b"never":
            await asyncio.sleep(1000)
        return {"version": version, "order": order}

    async def _signal(self, number: int) -> None:
        self._ray.told.append(("signal", number))

    async def _wait(self, seconds: float) -> Any:
        raise RuntimeError("The actor died.\n\tactor_id: 1")


class FakeHost:
    """What would be written to the host."""

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}
        self.changed = asyncio.Event()

    def write(self, frame: bytes) -> None:
        assert int.from_bytes(frame[:LENGTH], "big") == len(frame) - LENGTH
        answer = msgspec.msgpack.decode(frame[LENGTH:])
        self.answers[answer["number"]] = answer.get("value", answer.get("error"))
        self.changed.set()

    async def until(self, number: int) -> Any:
        while number not in self.answers:
            await self.changed.wait()
            self.changed.clear()
        return self.answers[number]


def run(test: Callable[[Driver, FakeRay, FakeHost], Any]) -> None:
    async def within() -> None:
        ray, host = FakeRay(), FakeHost()
        async with asyncio.timeout(30):
            await test(Driver(ray, host), ray, host)  # type: ignore[arg-type]  # a stand-in for a stream, and one for Ray

    asyncio.run(within())


def test_a_worker_from_its_start_to_its_end() -> None:
    async def test(driver: Driver, ray: FakeRay, host: FakeHost) -> None:
        driver.obey({"number": 2, "op": "launch", "id": 1, "version": "1", "order": b"o", "options": {"num_cpus": 2}})
        assert await host.until(2) == {"version": "1", "order": b"o"}
        driver.obey({"number": 3, "op": "call", "id": 1, "method": "signal", "args": [9]})
        assert await host.until(3) is None
        driver.obey({"number": 4, "op": "call", "id": 1, "method": "wait", "args": [1.0]})
        assert await host.until(4) == "The actor died."
        driver.obey({"op": "end", "id": 1})
        driver.obey({"number": 5, "op": "cluster"})
        assert await host.until(5) == "the head is away"
        driver.obey({"number": 6, "op": "call", "id": 1, "method": "signal", "args": [9]})
        assert await host.until(6) == "its actor has been ended"
        options = {"max_concurrency": 16, "max_restarts": 0, "num_cpus": 2}
        assert ray.told == ["SnakepitWorker", options, ("signal", 9), ("kill", True)]
        assert set(host.answers) == {2, 3, 4, 5, 6}

    run(test)


def test_an_actor_that_is_not_placed_yet_can_be_ended() -> None:
    async def test(driver: Driver, ray: FakeRay, host: FakeHost) -> None:
        driver.obey({"number": 2, "op": "launch", "id": 1, "version": "1", "order": b"never", "options": {}})
        await asyncio.sleep(0)
        driver.obey({"op": "end", "id": 1})
        while ("kill", True) not in ray.told:
            await asyncio.sleep(0.001)
        assert host.answers == {}

    run(test)


@pytest.mark.parametrize("id", [1, 2])
def test_the_end_of_an_unknown_worker_is_no_error(id: int) -> None:
    async def test(driver: Driver, ray: FakeRay, host: FakeHost) -> None:
        driver.obey({"number": 3, "op": "end", "id": id})
        assert await host.until(3) is None

    run(test)
