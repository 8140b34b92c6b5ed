"""Tools with hints of every kind."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy as np

from bridge_py import BaseAdapter, SessionContext, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Tree:
    size: Annotated[int, msgspec.Meta(ge=0, lt=10)]
    parts: list[Tree] = dataclasses.field(default_factory=list)


class Point(msgspec.Struct, rename="camel"):
    at_x: float
    at_y: float | None = None


class Pair(NamedTuple):
    first: int
    second: str


class Options(TypedDict, total=False):
    depth: int
    colour: Colour


class Many(BaseAdapter):
    """Tools with hints of every kind."""

    def __init__(self) -> None:
        raise AssertionError("strategies do not load models")

    @tool
    def numbers(
        self,
        a: Annotated[int, msgspec.Meta(gt=2, le=9)],
        b: Annotated[int, msgspec.Meta(multiple_of=7, ge=1)],
        c: Annotated[float, msgspec.Meta(gt=0, lt=1)],
        d: Annotated[float, msgspec.Meta(ge=-1.5)] = 0.0,
        e: complex = 0j,
        f: decimal.Decimal | None = None,
    ) -> None:
        """Take numbers."""

    @tool
    def texts(
        self,
        a: Annotated[str, msgspec.Meta(pattern="^[a-z]+[0-9]", max_length=20)],
        b: Annotated[str, msgspec.Meta(min_length=2, max_length=3)],
        c: Literal["x", 1, None],
        d: bytes,
        e: bytearray,
        f: memoryview | None = None,
    ) -> None:
        """Take texts."""

    @tool
    def times(
        self,
        a: dt.datetime,
        b: Annotated[dt.datetime, msgspec.Meta(tz=True)],
        c: Annotated[dt.time, msgspec.Meta(tz=False)],
        d: dt.date,
        e: dt.timedelta,
    ) -> None:
        """Take times."""

    @tool
    def collections(
        self,
        a: Annotated[list[int | str], msgspec.Meta(max_length=3)],
        b: set[uuid.UUID],
        c: frozenset[int],
        d: tuple[int, bool],
        e: tuple[float, ...],
        f: dict[str, list[bool]],
        g: dict[int, None],
    ) -> None:
        """Take collections."""

    @tool
    def objects(self, a: Tree, b: Point, c: Pair, d: Options, e: Colour, f: list[Tree | None]) -> None:
        """Take objects."""

    @tool
    def others(self, a: np.ndarray[Any, Any], b: pathlib.Path, c: Any, d, e: object, f: list = [], **more: int) -> None:  # type: ignore[no-untyped-def, type-arg]  # noqa: B006
        """Take others."""

    @tool
    def nothing(self, ctx: SessionContext) -> None:
        """Take nothing."""
