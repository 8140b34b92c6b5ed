"""`open_pool(pickle=True)`: functions that workers cannot import, and objects that the codec does not take."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.tools import pickling
from snakepit_trio.testing import InMemory
from tests.helpers import functions as f
from tests.helpers.functions import Adder, Colour, Point

ROOT = Path(__file__).parent.parent.parent
THE_WAY = r"open_pool\(pickle=True\) sends it"


@pytest.fixture(params=["processes", "memory"])
async def pool(request: pytest.FixtureRequest) -> Any:
    launcher = InMemory() if request.param == "memory" else None
    async with snakepit.open_pool(f.Tools, workers=1, launcher=launcher, pickle=True) as pool:
        yield pool


class Later(Adder):
    async def __call__(self, number: int) -> int:  # type: ignore[override]
        return self.add(number)


class Broken:
    """Its pickle can be written, and not be read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Ending:
    """Its pickle ends the process that reads it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


class Endless:
    """Reading its pickle takes an hour."""

    def __reduce__(self) -> Any:
        return __import__("time").sleep, (3600,)


class Held:
    """An object that only its codec can send."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.Lock()


snakepit.register_codec(Held, "tests.Held", lambda held: Point(held.number), lambda point: Held(point["x"]))


# Functions.


async def test_functions_that_no_module_has(pool: snakepit.Pool) -> None:
    by = 5

    def added(number: int) -> int:
        return number + by

    def nested(number: int) -> int:
        return added(added(number))

    async def waited(number: int) -> int:
        return nested(number)

    class Sum:
        def __init__(self, a: int, b: int) -> None:
            self.sum = a + b

    assert await pool.run(lambda: by) == 5
    assert await pool.run(added, 1) == 6
    assert await pool.run(nested, 1) == 11
    assert await pool.run(waited, 1) == 11
    assert await pool.run(functools.partial(lambda a, *, b: (a, b), 1), b=2) == (1, 2)
    assert await pool.run(functools.partial(functools.partial(added), 3)) == 8
    assert await pool.run(Adder(2).add, 1) == 3
    assert await pool.run(Adder(2), 1) == 3
    assert await pool.run(Later(2), 1) == 3
    assert await pool.run([3, 4].index, 4) == 1
    assert (await pool.run(Sum, 1, b=2)).sum == 3
    by = 6
    assert await pool.run(added, 1) == 7  # its variables are as they are at the call


async def test_generators_that_no_module_has(pool: snakepit.Pool) -> None:
    @dataclasses.dataclass
    class Step:
        number: int

    def steps(to: int) -> Any:
        for number in range(to):
            yield Step(number)

    async def steps_later(to: int) -> Any:
        for number in range(to):
            yield Step(number)

    functions: list[Any] = [steps, steps_later, lambda to: map(Step, range(to))]
    for function in functions:
        async with pool.iterate(function, 3) as chunks:
            found = [chunk async for chunk in chunks]
        assert found == [Step(0), Step(1), Step(2)]
    with pytest.raises(snakepit.UsageError, match="steps yields its results one by one: use iterate"):
        await pool.run(steps, 3)


@pytest.mark.parametrize("chunksize", [1, 3])
async def test_map(pool: snakepit.Pool, chunksize: int) -> None:
    class Refused(Exception):
        pass

    class Box:
        def __init__(self, number: int) -> None:
            self.number = number

    def boxed(number: int) -> Box:
        if number == 4:
            raise Refused(number)
        return Box(number)

    async with pool.map(boxed, range(6), chunksize=chunksize, pairs=True) as pairs:
        found = [pair async for pair in pairs]
    for number, result in found:
        if number == 4:
            with pytest.raises(Refused, match="4"):
                result.unwrap()
        else:
            box = result.unwrap()
            assert type(box) is Box
            assert box.number == number
    async with pool.map(lambda box: box.number, map(Box, range(4)), chunksize=chunksize) as numbers:
        assert [number async for number in numbers] == [0, 1, 2, 3]


async def test_a_function_by_name_is_called_by_name(pool: snakepit.Pool) -> None:
    assert await pool.run(f.add, 1) == 2
    assert await pool.run(f.kinds, Point(1), Point(2), colour=Colour.BLUE) == ["Point", "Point", "Colour"]
    with pytest.raises(snakepit.UsageError, match="is no function"):
        await pool.run(3)  # type: ignore[call-overload]


async def test_the_initializer_may_be_pickled() -> None:
    found: list[int] = []
    for launcher in (None, InMemory()):
        where = os.getpid()

        def first(point: Point, *, where: int = where) -> None:
            os.environ["TEST_OF_PICKLES"] = f"{point.x} {type(point).__name__} {where}"

        settings: Any = {"workers": 1, "launcher": launcher, "pickle": True}
        async with snakepit.open_pool(initializer=first, initargs=(Point(3),), **settings) as pool:
            assert await pool.run(lambda: os.environ.pop("TEST_OF_PICKLES")) == f"3 Point {where}"
    assert found == []


# Values.


async def test_objects_come_back_as_what_they_are(pool: snakepit.Pool) -> None:
    class Local:
        def __init__(self, value: Any) -> None:
            self.value = value

    class Kind(enum.Enum):
        ONE = 1

    def same(value: Any) -> Any:
        return value

    async def by_name(value: Any) -> Any:
        found: Any = await pool.run(f.same, value)
        return found[0][0]

    async def by_itself(value: Any) -> Any:
        return await pool.run(same, value)

    for send in (by_name, by_itself):
        local = await send(Local((1, {Kind.ONE: [Local(None)]})))
        assert type(local) is Local
        number, by_kind = local.value
        assert number == 1
        assert list(by_kind) == [Kind.ONE]
        assert type(by_kind[Kind.ONE][0]) is Local
        assert await send(Point(1)) == Point(1)  # although it has no hint
        assert await send({Colour.RED: Point(2)}) == {Colour.RED: Point(2)}
    one = [Local(1)]
    same_twice = await pool.run(same, [one, one])
    assert same_twice[0] is same_twice[1]
    one.append(one)  # type: ignore[arg-type]
    circle = await pool.run(same, one)
    assert circle[1] is circle


async def test_plain_values_are_sent_without_pickles(pool: snakepit.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    value = ((1, {"a": {2}}), 1 << 80, np.arange(10_000), frozenset({b"x"}))

    def dump(value: Any, *, chains: bool = True) -> bytes:
        raise AssertionError(value)

    monkeypatch.setattr(pickling, "_dump", dump)
    found: Any = await pool.run(f.same, *value)
    plain, large, array, rest = found[0]
    assert (plain, large, rest) == (value[0], value[1], value[3])
    assert (array == value[2]).all()


async def test_large_parts_travel_and_can_be_changed(pool: snakepit.Pool) -> None:
    array = np.arange(500_000)

    class Counts:
        def __init__(self) -> None:
            self.counts = array

        def add(self) -> Any:
            self.counts += 1
            return self

    found = await pool.run(Counts().add)
    assert (found.counts == array + 1).all()
    found.counts[0] = 7
    assert await pool.run(lambda: int(array.sum())) == int(array.sum())


async def test_an_object_with_a_codec_goes_by_it(pool: snakepit.Pool) -> None:
    held, adder = await pool.run(lambda held, adder: (Held(held.number + 1), adder), Held(3), Adder(1))
    assert held.number == 4
    assert adder(1) == 2


async def test_what_cannot_be_pickled_is_told_with_its_place(pool: snakepit.Pool) -> None:
    lock = threading.Lock()

    def locked() -> None:
        lock.acquire()

    cases: list[tuple[Any, tuple[Any, ...], str]] = [
        (f.same, ({"a": [1, lock]},), r"helpers.functions:same.args\[0\].a\[1\]: it cannot be pickled: TypeError: "),
        (f.same, (Adder(lock),), r"args\[0\].by: it cannot be pickled"),  # type: ignore[arg-type]
        (locked, (), r"locked.function \(its variable 'lock'\): it cannot be pickled: TypeError"),
        (Adder(lock).add, (), r"function.__self__.by: it cannot be pickled"),  # type: ignore[arg-type]
        (lambda: [1, threading.Lock()], (), r"gave what cannot be sent: result\[1\]: it cannot be pickled"),
    ]
    circle = Adder(lock)  # type: ignore[arg-type]
    circle.first = circle  # type: ignore[attr-defined]
    cases.append((f.same, (circle,), r"^\S+:same.args\[0\].by: it cannot be pickled"))
    for function, args, message in cases:
        with pytest.raises(snakepit.EncodeError, match=message) as caught:
            await pool.run(function, *args)
        assert "pickle=True" not in str(caught.value)
    with pytest.raises(snakepit.EncodeError, match="chunk: it cannot be pickled"):
        async with pool.iterate(lambda: iter([threading.Lock()])) as chunks:
            await anext(chunks)
    assert await pool.run(f.add, 1) == 2


async def test_a_pickle_that_cannot_be_read_fails_its_call_alone(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.CodecError, match="a pickle cannot be read: ValueError: invalid literal"):
        await pool.run(f.without_hint, Broken())
    with pytest.raises(snakepit.CodecError, match="a pickle cannot be read: ValueError: invalid literal"):
        await pool.run(Broken)
    assert await pool.run(f.add, 1) == 2


async def test_reading_a_pickle_may_end_or_be_stopped() -> None:
    async with snakepit.open_pool(workers=1, pickle=True, cancel_grace=0.2) as pool:
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.run(f.without_hint, Ending())
        await pool.await_ready()
        with pytest.raises(snakepit.CallTimeout):
            await pool.options(timeout=0.3).run(f.without_hint, Endless())
        assert await pool.run(f.add, 1) == 2


def test_a_pickle_of_another_python_is_not_read() -> None:
    data = pickling.pickled(Adder(1))
    with pytest.raises(snakepit.CodecError, match=r"a pickle of Python 3\.250 has come to Python 3\.\d+: .* the same"):
        pickling._load(bytes([3, 250]) + data[2:], imports=True)


# Exceptions.


async def test_exceptions_of_local_classes(pool: snakepit.Pool) -> None:
    class Refused(Exception):
        def __init__(self, code: int, point: Point) -> None:
            super().__init__(f"{code}: refused")
            self.point = point

    def refuse() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise Refused(1, Point(1)) from None
        except Refused as error:
            error.add_note("a note")
            raise Refused(2, Point(2)) from error

    def refuse_several() -> None:
        raise ExceptionGroup("several", [Refused(3, Point(3)), ValueError("v")])

    with pytest.raises(Refused, match="2: refused") as caught:
        await pool.run(refuse)
    error = caught.value
    assert error.point == Point(2)
    told = error.__cause__
    assert isinstance(told, snakepit.ToolError)
    assert "in refuse" in told.remote_traceback
    first = told.__cause__
    assert isinstance(first, Refused)
    assert (first.point, first.__notes__) == (Point(1), ["a note"])
    assert first.__suppress_context__
    assert repr(first.__context__) == "KeyError('first')"

    def refuse_as_value() -> None:
        raise ValueError("value") from Refused(4, Point(4))

    with pytest.raises(ValueError, match="value") as builtin:
        await pool.run(refuse_as_value)
    assert builtin.value.__cause__ is not None
    assert isinstance(builtin.value.__cause__.__cause__, Refused)
    with pytest.raises(ExceptionGroup) as group:
        await pool.run(refuse_several)
    one, other = group.value.exceptions
    assert isinstance(one, Refused)
    assert one.point == Point(3)
    assert repr(other) == "ValueError('v')"


async def test_exceptions_that_cannot_be_pickled_or_read_are_tool_errors(pool: snakepit.Pool) -> None:
    class Locked(Exception):
        pass

    class Unread(Exception):
        def __reduce__(self) -> Any:
            return int, ("no number",)

    def raise_locked() -> None:
        raise Locked(threading.Lock())

    def raise_unread() -> None:
        raise Unread

    def raise_large() -> None:
        raise Locked("x" * (1 << 20))

    def raise_ours() -> None:
        raise snakepit.PoolClosed("not really")

    for function in (raise_locked, raise_unread, raise_large, raise_ours):
        with pytest.raises(snakepit.ToolError):
            await pool.run(function)

    def raise_with_locked_cause() -> None:
        raise Locked("by itself") from OSError(threading.Lock())

    with pytest.raises(Locked, match="by itself"):
        await pool.run(raise_with_locked_cause)


# Sessions and contexts.


class WaitingStore(snakepit.MemoryStore):
    may_wait = True


async def test_sessions_and_contexts() -> None:
    async with snakepit.open_pool(workers=1, pickle=True, store=WaitingStore()) as pool, pool.session() as session:
        adder = Adder(1)
        assert await session.run(adder.add, 2) == 3
        async with session.iterate(lambda adder: iter([adder]), adder) as chunks:
            assert [chunk.by async for chunk in chunks] == [1]
        async with session.map(adder.add, range(3)) as results:
            assert [result async for result in results] == [1, 2, 3]
        with pytest.raises(snakepit.EncodeError, match=r"args\[0\]: it cannot be pickled"):
            await session.run(lambda it: it, threading.Lock())
    async with snakepit.Context(lambda: snakepit.open_pool(workers=1, pickle=True)) as context:
        assert await context.run(lambda: 3) == 3
        async with context.iterate(lambda: iter([3])) as chunks:
            assert [chunk async for chunk in chunks] == [3]


# Where pickles are not used.


async def test_tools_take_no_pickles(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.EncodeError, match="args.n: an object of type .*Adder cannot be sent") as caught:
        await pool.execute("double", {"n": Adder(1)})
    assert "pickle=True" not in str(caught.value)
    with pytest.raises(snakepit.EncodeError):
        await pool.run(f.Tools.double, Adder(1))  # type: ignore[call-overload]
    for name in ("snakepit:run_pickled", "snakepit:iterate_pickled"):
        with pytest.raises(snakepit.UnknownTool, match="functions are called with run and iterate"):
            await pool.execute(name, {"function": "os:getpid", "args": [], "kwargs": {}})


async def test_without_cloudpickle_in_the_worker_it_is_told_where_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "cloudpickle.py").write_text("raise ImportError('not for this test')\n")
    async with snakepit.open_pool(workers=1, pickle=True, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as pool:
        assert await pool.run(f.add, 1) == 2  # this needs no pickle
        for function, args in ((lambda: 1, ()), (f.same, (Adder(1),)), (f.boxed, (Point(1),))):
            with pytest.raises(
                snakepit.UsageError, match=r"cloudpickle is missing in .*: pip install 'snakepit-trio\["
            ):
                await pool.run(function, *args)


async def test_calls_with_pickles_are_cancelled_as_others() -> None:
    async with snakepit.open_pool(workers=1, pickle=True) as pool:
        with trio.move_on_after(0.3) as scope:
            await pool.run(lambda: threading.Event().wait(60))
        assert scope.cancelled_caught
        assert await pool.run(lambda: 3) == 3
