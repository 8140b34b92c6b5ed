"""Functions for `Pool.run` and its kin: what the programs of users have at the top of their modules."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import attrs
import msgspec

import bridge_py


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass(frozen=True)
class Point3(Point):
    z: int = 0


class Colour(enum.Enum):
    RED = (255, 0, 0)
    BLUE = (0, 0, 255)


class Pair(NamedTuple):
    first: Point
    second: Point


@attrs.frozen
class Line:
    points: tuple[Point, ...]
    colour: Colour = Colour.RED


class Box(msgspec.Struct, frozen=True):
    lines: list[Line]
    name: str | None = None


class Refusal(Exception):
    """Its `__init__` does not take its `args`, which breaks pickle."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


class Adder:
    """An object of a class that has no codec."""

    def __init__(self, by: int) -> None:
        self.by = by

    def add(self, number: int) -> int:
        return number + self.by

    def __call__(self, number: int) -> int:
        return self.add(number)


class Tools(bridge_py.BaseAdapter):
    @bridge_py.tool
    def double(self, n: int) -> int:
        return 2 * n

    @bridge_py.tool(name="mirrored")
    def mirror(self, point: Point, *, colour: Colour = Colour.RED) -> dict[str, Point]:
        return {colour.name: Point(point.y, point.x)}

    @bridge_py.tool
    async def count(self, to: int) -> AsyncIterator[Point]:
        for x in range(to):
            yield Point(x)

    @bridge_py.tool
    def refuse(self) -> None:
        raise Refusal(1, why="tool")


def add(a: int, b: int = 1) -> int:
    return a + b


def same(*args: object, **kwargs: object) -> object:
    return args, kwargs


def kinds(point: Point, *others: Point, colour: Colour, **lines: Line) -> list[str]:
    return [type(each).__name__ for each in (point, *others, colour, *lines.values())]


def moved(point: Point, by: int) -> Point:
    return dataclasses.replace(point, x=point.x + by)


def boxed(point: Point | None) -> Box | None:
    return None if point is None else Box([Line((point, Point3(1, 2, 3)), Colour.BLUE)], "box")


def paired(first: Point, second: Point) -> Pair:
    return Pair(first, second)


def without_hint(point):  # type: ignore[no-untyped-def]
    return Point(point["x"])


def wrong_hint() -> Colour:
    return Point(1)  # type: ignore[return-value]


async def waited(seconds: float, value: object) -> object:
    await asyncio.sleep(seconds)
    return value


def refuse(code: int = 3) -> None:
    try:
        dict[str, int]()["missing"]
    except KeyError as error:
        refusal = Refusal(code, why="no")
        refusal.add_note("a note")
        raise refusal from error


def refuse_several() -> None:
    raise ExceptionGroup(
        "several", [Refusal(1, why="a"), ExceptionGroup("more", [KeyError("k"), OSError(2, "no", "f")])]
    )


def raise_local() -> None:
    class Local(Exception):
        pass

    raise Local("nobody else has this class")


def raise_unsendable() -> None:
    raise ValueError(object())


def leave() -> None:
    raise SystemExit(3)


def stop() -> None:
    raise StopIteration(1)


def odd_one_refused(n: int) -> int:
    if n % 2:
        raise Refusal(n, why="odd")
    return n * n


def points(to: int) -> Iterator[Point]:
    for x in range(to):
        yield Point(x)


async def points_later(to: int) -> AsyncIterator[Point]:
    for x in range(to):
        await asyncio.sleep(0)
        yield Point(x)


def endless(path: str) -> Iterator[int]:
    n = 0
    try:
        while True:
            n += 1
            yield n
    finally:
        with open(path, "a") as file:
            file.write("closed\n")


def refusing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise Refusal(count, why="enough")


def sleep_and_note(seconds: float, path: str) -> None:
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write("done\n")


def die() -> None:
    os.kill(os.getpid(), 9)


_given: list[object] = []


def remember(*values: object, path: str = "") -> None:
    if path:
        with open(path, "a") as file:
            file.write("started\n")
    _given.extend(values)


async def remember_later(value: object) -> None:
    await asyncio.sleep(0)
    _given.append(value)


def remembered() -> list[object]:
    return _given


def fail_to_start(why: str) -> None:
    raise Refusal(7, why=why)


def moved_by_one(point: Point) -> Point:
    return moved(point, 1)


async def later(n: int) -> tuple[int]:
    return (n,)


_numbers = itertools.count()


def numbered(n: int) -> tuple[int, int]:
    """The item, and how many calls have started before this one."""
    return n, next(_numbers)


def same_pid(_n: int) -> int:
    return os.getpid()


def pids(count: int) -> Iterator[int]:
    for _ in range(count):
        yield os.getpid()
