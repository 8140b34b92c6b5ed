"""Pools without `pickle=True`, whose errors name it where it would help, and workers that take no pickles."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers import functions as f
from tests.helpers.functions import Adder

ROOT = Path(__file__).parent.parent.parent
THE_WAY = r"open_pool\(pickle=True\) sends it"


async def test_errors_without_pickles_name_the_way() -> None:
    lock = threading.Lock()
    adder = Adder(1)
    sendable: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda: 1, ()),
        (adder.add, (1,)),
        (functools.partial(lambda a: a, 1), ()),
        (f.same, (adder,)),
        (Adder, (1,)),
        (f.same, ([lambda: 1],)),
    ]
    other: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda: lock, ()),
        (f.same, ([lock],)),
        (threading.Lock, ()),
        (f.same, ((number for number in [1]),)),
    ]
    for launcher in (None, InMemory()):
        async with snakepit.open_pool(workers=1, launcher=launcher) as pool:
            for function, args in sendable:
                with pytest.raises(snakepit.UsageError, match=THE_WAY):
                    await pool.run(function, *args)
            for function, args in other:
                with pytest.raises(snakepit.UsageError) as caught:
                    await pool.run(function, *args)
                assert "pickle=True" not in str(caught.value)
    with pytest.raises(snakepit.UsageError, match=THE_WAY):
        async with snakepit.open_pool(initializer=lambda: None):
            pass


async def test_advice_takes_no_longer_for_large_objects() -> None:
    class Model:
        def __init__(self) -> None:
            self.weights = [bytes(1 << 16)] * 16 + [bytes([number % 256]) * (1 << 16) for number in range(2_000)]
            self.pickled = 0

        def __reduce__(self) -> Any:
            return Model, (), None, self._parts()

        def _parts(self) -> Any:
            for part in self.weights:
                self.pickled += 1
                yield part

        def predict(self) -> None: ...

    model = Model()
    async with snakepit.open_pool(workers=1) as pool:
        with pytest.raises(snakepit.UsageError, match=THE_WAY):
            await pool.run(model.predict)
    assert 0 < model.pickled < 1_000


async def test_pickles_are_for_workers_of_ours() -> None:
    worker = snakepit.StdioJson(str(ROOT / "tests/helpers/stdio_worker.py"), executable=sys.executable)
    settings: list[tuple[dict[str, Any], str]] = [
        ({"adapter": worker}, "pickle=True is for functions, and workers of .* have tools, and no functions"),
        ({"pickle": "yes"}, "pickle='yes': give True or False"),
        ({"pickle": 1, "initializer": print}, "pickle=1: give True or False"),
    ]
    for wrong, message in settings:
        with pytest.raises(snakepit.UsageError, match=message):
            async with snakepit.open_pool(**{"pickle": True, **wrong}):
                pass
