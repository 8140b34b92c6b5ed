"""Both engines of process_large_dataset make the same of any table, in blocks of any size."""

from __future__ import annotations

import csv
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_py.adapters.streams.configs import Engine, Operation
from bridge_py.adapters.streams.dataset import process

numbers = st.one_of(
    st.text("0123456789.-+eE_ naif", max_size=6),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.just(""),
)
texts = st.text('aB é"\n,;', max_size=5)
rows = st.one_of(
    st.tuples(numbers, texts, numbers), st.lists(texts, min_size=1, max_size=4).filter(lambda cells: cells != [""])
)
XY = ["x", "y"]
operations = st.sets(st.sampled_from(["clean", "transform", "aggregate"])).map(sorted)


@settings(deadline=None)
@given(table=st.lists(rows, min_size=1, max_size=12), chunk_size=st.integers(1, 5), wanted=operations)
def test_engines_agree(table: list[Any], chunk_size: int, wanted: list[Operation]) -> None:
    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["x", "t", "y"], *table])
        file.flush()
        plain, fast = (_final(Path(file.name), chunk_size, wanted, engine, XY) for engine in ("csv", "pyarrow"))
    assert {**plain, "columns": None} == {**fast, "columns": None}
    assert plain["columns"].keys() == fast["columns"].keys()
    for name, column in plain["columns"].items():
        if column["kind"] == "text":
            assert column == fast["columns"][name]
        else:
            ours, theirs = (_numbers_of(each) for each in (column, fast["columns"][name]))
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6, nan_ok=True)


def _numbers_of(column: dict[str, Any]) -> list[float]:
    return [math.nan if value is None else value for value in list(column.values())[1:]]


def _final(
    path: Path, chunk_size: int, wanted: list[Operation], engine: Engine, numeric: list[str] | None
) -> dict[str, Any]:
    *_, final = process(str(path), chunk_size, wanted, numeric_columns=numeric, engine=engine)
    return {"total_rows": final["total_rows"], **final["final_stats"]}


@settings(deadline=None)
@given(
    body=st.text('a1", \n\r\t\ufeff\x00é', max_size=40),
    chunk_sizes=st.tuples(*[st.integers(1, 5)] * 2),
    wanted=operations,
)
def test_engines_agree_on_what_is_hardly_csv(body: str, chunk_sizes: tuple[int, int], wanted: list[Operation]) -> None:
    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8") as file:
        file.write(f"x,t,y\n{body}")
        file.flush()
        engines: tuple[Engine, Engine] = ("csv", "pyarrow")
        found = [_final(Path(file.name), size, wanted, engine, XY) for engine in engines for size in chunk_sizes]
    assert all(each == found[0] for each in found)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(texts, texts), max_size=8), at=st.integers(0, 8), quoting=st.sampled_from([0, 1]))
def test_an_open_quote_costs_no_more_than_its_line(rows: list[tuple[str, str]], at: int, quoting: Any) -> None:
    at = min(at, len(rows))
    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=quoting)
        writer.writerow(["x", "y"])
        writer.writerows(rows[:at])
        file.write('"open,1\n')
        writer.writerows([["a", "b"], *rows[at:]] if quoting else [["a", "b"]])
        file.flush()
        found = _final(Path(file.name), 3, [], "csv", None)
    assert (found["errors"], found["total_rows"]) == (1, at + 2 + (len(rows) - at if quoting else 0))
