"""Tools that take and return values of all kinds."""

from __future__ import annotations

import dataclasses
import enum
import os
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np
import psutil

from bridge_py import BaseAdapter, SessionContext, register_codec, tool


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    y: float


@attrs.define
class Box:
    low: Point
    high: Point


class Sample(msgspec.Struct):
    name: str
    values: Any


class Celsius:
    """What only a codec of its own can send."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


register_codec(Celsius, "celsius", lambda value: value.degrees, Celsius)


class Unreadable:
    """What can be sent, and not read."""


def _fail(_value: object) -> Unreadable:
    raise ArithmeticError("no")


register_codec(Unreadable, "unreadable", lambda _value: 1, _fail)


class ValueTools(BaseAdapter):
    """Tools for tests of values."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def ask(self, context: SessionContext, name: str) -> str:
        """What a tool of the host gives."""
        return type(context.call_host_tool(name)).__name__

    @tool
    def hinted(self, color: Color, box: Box, sample: Sample, path: Path, price: Decimal, ids: set[int]) -> list[str]:
        return [type(value).__name__ for value in (color, box, box.low, sample, path, price, ids)]

    @tool
    def make(self, size: int) -> np.ndarray:
        """An array of bytes, which shows where each of them was."""
        return np.arange(size, dtype=np.uint64).astype(np.uint8)

    @tool
    def total(self, array: np.ndarray) -> float:
        return float(array.sum())

    @tool
    def makes(self, size: int, count: int) -> Iterator[np.ndarray]:
        for number in range(count):
            yield np.full(size, number, np.uint8)

    @tool
    def is_writeable(self, array: np.ndarray) -> bool:
        return array.flags.writeable

    @tool
    def hold(self, array: np.ndarray) -> int:
        """Keep an array after the call, and look at all of its memory."""
        assert int(array[::4096].sum()) >= 0
        self.held.append(array)
        return len(self.held)

    @tool
    def let_go(self) -> None:
        self.held.clear()

    @tool
    def memory(self) -> dict[str, int]:
        """Bytes of this process by kind."""
        text = Path("/proc/self/status").read_text()
        lines = dict(line.split(":") for line in text.splitlines() if line.startswith("Rss"))
        return {name: int(value.split()[0]) * 1024 for name, value in lines.items()}

    @tool
    def hottest(self, values: list[Celsius]) -> Celsius:
        return max(values, key=lambda value: value.degrees)

    @tool
    def die_with(self, array: np.ndarray) -> None:
        os.kill(os.getpid(), 9)

    @tool(idempotent=True)
    def die_once_with(self, array: np.ndarray, path: str) -> float:
        if not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), 9)
        return float(array.sum())

    @tool
    def wait_with(self, array: np.ndarray, path: str) -> None:
        Path(path).touch()
        time.sleep(60)

    @tool
    def forget_numpy(self) -> None:
        """From now on numpy cannot be imported here."""
        sys.modules["numpy"] = None  # type: ignore[assignment]

    @tool
    def descriptors(self) -> int:
        return psutil.Process().num_fds()
