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
operations = st.sets(st.sampled_from(["clean", "transform", "aggregate"])).map(sorted)


@settings(deadline=None)
@given(table=st.lists(rows, min_size=1, max_size=12), chunk_size=st.integers(1, 5), wanted=operations)
def test_engines_agree(table: list[Any], chunk_size: int, wanted: list[Operation]) -> None:
    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["x", "t", "y"], *table])
        file.flush()
        plain, fast = (_final(Path(file.name), chunk_size, wanted, engine) for engine in ("csv", "pyarrow"))
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


def _final(path: Path, chunk_size: int, wanted: list[Operation], engine: Engine) -> dict[str, Any]:
    *_, final = process(str(path), chunk_size, wanted, numeric_columns=["x", "y"], engine=engine)
    return {"total_rows": final["total_rows"], **final["final_stats"]}
