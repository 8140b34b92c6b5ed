"""Decodes tables, frames and arrays that are broken at random, in a process that a fault of a library ends."""

from __future__ import annotations

import datetime as dt
import random
import resource
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError

NUMBERS = [0, 1, 5, 255, 2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**33, 2**40, 2**62, 2**63 - 1, 2**64 - 1]
ADDRESS_SPACE = 8 << 30  # bytes; whoever asks for more gets an error, as on a machine that is full


def _polars() -> list[Any]:
    days = [dt.date(2020, 1, day) for day in (1, 2, 3)]
    return [
        pl.DataFrame({"a": [1, 2, None], "s": ["a", "bb", "c" * 40], "b": [b"1", b"2" * 50, None], "d": days}),
        pl.DataFrame({"l": [[1, 2], [3], []], "st": [{"x": 1}, {"x": 2}, {"x": 3}], "n": [None, None, None]}),
        pl.DataFrame(
            {"c": pl.Series(["a", "b"], dtype=pl.Categorical), "e": pl.Series(["x", "y"], dtype=pl.Enum("xy"))}
        ),
        pl.DataFrame({"r": pl.Series([[1, 2]], dtype=pl.Array(pl.Int32, 2)), "m": [Decimal("1.5")]}),
        pl.Series("q", [[["a"]], [["b", "c"]], []]),
    ]


def _arrow() -> list[Any]:
    words = pa.array(["a", "b", "a"])
    return [
        pa.table({"a": [1, 2, None], "s": ["a", "bb", "c" * 40], "n": pa.nulls(3)}),
        pa.table({"l": [[1, 2], [3], []], "st": [{"x": 1}, {"x": 2}, {"x": 3}]}),
        pa.table({"d": words.dictionary_encode(), "v": pa.array(["x" * 30, "b", None], type=pa.string_view())}),
        pa.table({"m": pa.array([[("a", 1)], [], [("b", 2)]], type=pa.map_(pa.string(), pa.int32()))}),
        pa.table({"r": pa.RunEndEncodedArray.from_arrays([1, 3], [5, 6])}),
        pa.array([1.5, None]),
        pa.chunked_array([["a"], ["b"]]),
        pa.record_batch({"x": [1], "y": ["z"]}),
    ]


def _pandas() -> list[Any]:
    return [
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[5, 6]),
        pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        pd.DataFrame({"a": [1, 2, 3, 4]}, index=pd.MultiIndex.from_product([["a", "b"], [1, 2]])),
        *map(pd.Series, (pd.Categorical(["a", "b", "a"]), pd.date_range("2020-01-01", periods=3, tz="UTC"))),
        *map(pd.Series, (pd.period_range("2020-01", periods=3, freq="M"), pd.interval_range(0, 3))),
        *(pd.Series([1, None], dtype="Int64"), pd.Series([{1}, [2], (3,)], dtype=object), pd.Period("2020-01")),
    ]


def _numpy() -> list[Any]:
    return [
        *(
            np.arange(4),
            np.zeros((2, 3), order="F"),
            np.array(["ab", "c"]),
            np.array(["2020"], "M8[D]"),
            np.zeros(2, "V3"),
        ),
        *(np.zeros(2, [("a", "u1"), ("b", "f8", (2,))]), np.datetime64("2020-01-01"), memoryview(b"123456")),
    ]


SEEDS: dict[str, Callable[[], list[Any]]] = {"polars": _polars, "arrow": _arrow, "pandas": _pandas, "numpy": _numpy}


def _broken(chance: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at, size = chance.randrange(len(data)), chance.choice([1, 1, 4, 8])
        data[at : at + size] = (chance.choice(NUMBERS) % 256**size).to_bytes(size, "little")
    return bytes(data[: chance.randrange(1, len(data))] if chance.random() < 0.05 else data)


def main(kind: str, seed: int, count: int) -> None:
    """Decode that many inputs. What is raised must be a `DecodeError`."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    bodies = [codec.encode(value, beside=1 << 30).body for value in SEEDS[kind]()]
    chance, refused = random.Random(seed), 0
    for _ in range(count):
        try:
            codec.decode(_broken(chance, chance.choice(bodies)))
        except DecodeError:
            refused += 1
    print(f"{count} inputs, {refused} refused")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
