"""Classes whose names are hints, for both sides."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import numpy as np

T = TypeVar("T")


class Planet(enum.Enum):
    EARTH = (5.9e24, 6.3e6)
    MARS = (6.4e23, 3.3e6)


class Mixed(enum.Enum):
    HALF = 0.5
    ONE = 1
    TEXT = "a"
    NONE = None


class Colour(enum.Enum):
    RED = "red"


class Shape(enum.Enum):
    ROUND = "red"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Base:
    a: int


@dataclasses.dataclass(frozen=True)
class Sub(Base):
    b: int = 2


@dataclasses.dataclass(frozen=True)
class Same(Base):
    """A subclass without a field of its own."""


@dataclasses.dataclass(frozen=True)
class Other:
    a: int


@dataclasses.dataclass
class Job:
    where: Path | str
    when: dt.datetime | str
    planet: Planet
    size: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.size += 1


@dataclasses.dataclass
class Holder(Generic[T]):
    item: T


def _upper(text: str) -> str:
    return text.upper()


@attrs.define
class Box:
    low: Base | Other
    name: str = attrs.field(default="x", converter=_upper)


class Record(msgspec.Struct, rename="camel", tag="record"):
    the_item: Planet | None = None


class Pair(NamedTuple):
    first: Colour
    second: int = 0


class Options(TypedDict, total=False):
    depth: int


@dataclasses.dataclass
class WithInit:
    a: int
    b: dataclasses.InitVar[int]


Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(init=False)
class Picky:
    """Its own `__init__` takes something else."""

    seconds: int

    def __init__(self, minutes: int) -> None:
        self.seconds = 60 * minutes


class Counting(msgspec.Struct):
    count: int

    def __post_init__(self) -> None:
        self.count += 1
