"""process_large_dataset: its numbers against pandas, the same from both engines, in constant memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

from bridge_py import InvalidArguments, UsageError
from bridge_py.adapters.streams import dataset
from bridge_py.adapters.streams.columns import MOST_VALUES, Numbers, Texts, number
from bridge_py.adapters.streams.configs import Engine, Operation
from bridge_py.adapters.streams.files import LONGEST_LINE, Records, TextSource
from tests.helpers.sales import ALL, final_stats, run, write_sales

ENGINES: list[Engine] = ["csv", "pyarrow"]
both_engines = pytest.mark.parametrize("engine", ENGINES)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A table of 3,000 rows."""
    return write_sales(tmp_path / "sales.csv")


@both_engines
@pytest.mark.parametrize("clean", [True, False])
def test_numbers_are_those_of_pandas(sales: Path, engine: Engine, clean: bool) -> None:
    operations: list[Operation] = ["clean", "aggregate"] if clean else ["aggregate"]
    stats = final_stats(sales, operations=operations, engine=engine)
    frame = pd.read_csv(sales, keep_default_na=False)
    frame["price"] = pd.to_numeric(frame["price"], errors="coerce")
    frame = frame.dropna() if clean else frame
    assert (stats["errors"], stats["missing"], stats["skipped"]) == (6, 30, 36 if clean else 0)
    assert stats["processed"] == len(frame)
    for name in ("price", "quantity"):
        expected = frame[name].describe()[["count", "mean", "std", "min", "max"]].to_dict()
        found = stats["columns"][name]
        assert found.pop("kind") == "number"
        assert found == pytest.approx(expected, rel=1e-10)
    assert stats["columns"]["region"]["values"] == frame["region"].value_counts().to_dict()
    assert stats["columns"]["customer"] == {"kind": "text", "count": len(frame), "values": None}


@both_engines
def test_transform_brings_texts_into_one_form(sales: Path, engine: Engine) -> None:
    values = final_stats(sales, engine=engine)["columns"]["region"]["values"]
    normal = pd.read_csv(sales)["region"].str.split().str.join(" ").str.casefold()
    kept = normal[pd.to_numeric(pd.read_csv(sales)["price"], errors="coerce").notna()]
    assert values == kept.value_counts().to_dict()
    assert set(values) == {"north", "east", "south west"}


@both_engines
@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12", 12.0),
        ("-1.5e3", -1500.0),
        ("+5", 5.0),
        (" 5 ", 5.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("12345678901234567890", 12345678901234567890.0),
        ("1_000", None),
        ("nan", None),
        ("-inf", None),
        ("1e400", None),
        ("0x10", None),
        ("1;5", None),
        ("--1", None),
        (" ", None),
    ],
)
def test_what_is_a_number(tmp_path: Path, engine: Engine, cell: str, value: float | None) -> None:
    path = write(tmp_path / "a.csv", f"x,y\n{cell},1\n2,1\n")
    stats = final_stats(path, engine=engine, numeric_columns=["x", "y"])
    assert stats["errors"] == (value is None)
    assert stats["columns"]["x"]["count"] == 2 - (value is None)
    assert stats["columns"]["x"]["min" if value and value < 2 else "max"] == (2.0 if value is None else value)
    assert number(cell) == value or value is None


@both_engines
@pytest.mark.parametrize("chunk_size", [1, 2, 100])
@pytest.mark.parametrize(
    ("text", "rows", "errors", "values"),
    [
        ('t,x\n"a\nb",1\n"c ""d""",2\n', 2, 0, {"a\nb", 'c "d"'}),
        ("t,x\r\na,1\r\n\r\nb,2", 2, 0, {"a", "b"}),
        ("\ufefft,x\na,1\n", 1, 0, {"a"}),
        ("t,x\na,1\nb\nc,2,3\nd,4\n", 4, 2, {"a", "d"}),
        ('t,x\n5" pipe,1\nb,2\nc,3\n', 3, 0, {'5" pipe', "b", "c"}),
        (b"t,x\n\xff,1\nb,2\n", 2, 0, {"\ufffd", "b"}),
        ('t,x\n"",1\n,2\n', 2, 0, {""}),
    ],
)
def test_shapes_of_csv(
    tmp_path: Path, engine: Engine, chunk_size: int, text: str | bytes, rows: int, errors: int, values: set[str]
) -> None:
    path = write(tmp_path / "a.csv", text)
    chunks = run(path, chunk_size, ["clean", "aggregate"], engine=engine, numeric_columns=["x"])
    assert chunks[-1]["total_rows"] == chunks[-2]["processed_rows"] == rows
    assert chunks[-1]["final_stats"]["errors"] == errors
    assert set(chunks[-1]["final_stats"]["columns"]["t"]["values"]) == values


@both_engines
@pytest.mark.parametrize("chunk_size", [1, 3, 1000, 100_000])
@pytest.mark.parametrize("close", ["", '1"', ',"good"', 'x,""'])
def test_a_quote_that_nobody_closes_costs_its_line(tmp_path: Path, engine: Engine, chunk_size: int, close: str) -> None:
    rows = [f"{number},x" for number in range(3000 if chunk_size < 1000 else 100_000)]
    rows[10] = '10,"bad'
    rows[30] = f'30,"worse{close}'
    rows[-1] = '99,"open'
    rows[20] = '20,"good\n ""one"""'
    path = write(tmp_path / "a.csv", "\n".join(["n,name", *rows]))
    stats = final_stats(path, chunk_size=chunk_size, engine=engine, operations=["aggregate"])
    broken = 2 if close == '1"' else 3  # '"worse1"' is whole
    assert (stats["processed"], stats["errors"]) == (len(rows) - broken, broken)
    assert stats["columns"]["name"]["values"]["x"] == len(rows) - 4
    assert stats["columns"]["name"]["values"]['good\n "one"'] == 1


@both_engines
def test_names_may_have_line_ends(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "a.csv", 'id,"long\nname",v\n1,x,2\n2,y,3\n')
    found = run(path, engine=engine)[-1]
    assert list(found["final_stats"]["columns"]) == ["id", "long\nname", "v"]
    assert (found["total_rows"], found["final_stats"]["errors"]) == (2, 0)
    for header in ('id,"long\n1,x\n', 'id,"lo"ng\n1,x\n', '"' + "x,1\n" * 300_000):
        with pytest.raises(UsageError, match="a quote in the header is not closed"):
            run(write(path, header), engine=engine)


TEXT = "näme,x\r\nä,1\r\n€,2\r\n"


@both_engines
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("utf-32", None), ("utf-16-le", None), ("utf-16-be", None),
     ("cp1252", "cp1252"), ("utf-16", "utf-16"), ("utf-16-be", "utf_16_be"), ("utf-8-sig", "utf-8")],
)  # fmt: skip
def test_files_as_people_have_them(
    tmp_path: Path, engine: Engine, compress: Any, encoding: str, named: str | None
) -> None:
    path = write(tmp_path / "a.csv", compress(TEXT.encode(encoding)))
    *progress, final = run(path, 1, engine=engine, encoding=named)
    assert progress[-1]["progress_percent"] == 100
    assert final["total_rows"] == 2
    assert final["final_stats"]["columns"]["näme"]["values"] == {"ä": 1, "€": 1}
    assert {**final["final_stats"], "columns": 0} == {
        "processed": 2, "errors": 0, "missing": 0, "skipped": 0, "replaced": 0, "columns": 0
    }  # fmt: skip


@both_engines
def test_what_cannot_be_decoded_is_counted(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "a.csv", TEXT.encode("cp1252").replace(b"x", "x\ufffd".encode()))
    assert final_stats(path, engine=engine)["replaced"] == 3
    path = write(tmp_path / "b.csv", "t,x\na,1\n".encode("utf-16") + b"\x00\xd8\n\x00")
    assert final_stats(path, engine=engine)["replaced"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(100), "is a ZIP archive, or a workbook of Excel: give a text file"),
        (b"PAR1" + bytes(100), "is a Parquet file"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "is compressed with zstd"),
        (gzip.compress(b"PAR1" + bytes(100)), "is no text: there are NUL bytes"),
        (b"a,b\0\n1,2\n", "is no text: there are NUL bytes"),
        (gzip.compress(os.urandom(100_000).hex().encode())[:1000], "is broken"),
        (gzip.compress(b"x,y\n" + os.urandom(100_000).hex().encode() * 3)[:-5000], "is broken, or cut off, after byte"),
        (gzip.compress(b"x,y\n1,2\n")[:-9] + b"123456789", "is broken"),
    ],
    ids=range(8),
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(write(tmp_path / "a.csv", content))
    with pytest.raises(InvalidArguments, match="encoding='klingon': unknown encoding") as caught:
        run(write(tmp_path / "a.csv", "x\n1\n"), encoding="klingon")
    assert caught.value.parameter == "encoding"


def test_other_separators(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "t;x\na,b;1\n")
    for engine in ENGINES:
        assert final_stats(path, delimiter=";", engine=engine)["columns"]["t"]["values"] == {"a,b": 1}


@both_engines
def test_progress(sales: Path, engine: Engine) -> None:
    *progress, final = run(sales, 1000, engine=engine)
    assert [chunk["processed_rows"] for chunk in progress] == [1000, 2000, 3000]
    percents = [chunk["progress_percent"] for chunk in progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert all(chunk["estimated_rows"] == pytest.approx(3000, rel=0.1) for chunk in progress)
    assert progress[-1]["estimated_rows"] == final["total_rows"] == 3000
    assert final["engine"] == engine
    assert final["bytes"] == sales.stat().st_size


def test_merged_blocks_are_the_whole() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(1e9, 1e-3, 1000)  # a sum of squares would lose all digits of the deviation
    column = Numbers("x")
    for part in np.split(values, [1, 1, 3, 400, 999]):
        if len(part):
            squares = float(((part - part.mean()) ** 2).sum())
            column.merge(len(part), float(part.mean()), squares, float(part.min()), float(part.max()))
    assert column.summary()["std"] == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert column.summary()["mean"] == pytest.approx(values.mean(), rel=1e-15)


@both_engines
def test_sums_beyond_floats_are_told_as_such(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "a.csv", "x\n1e308\n1.5e308\n-1e308\n")
    found = final_stats(path, engine=engine)["columns"]["x"]
    assert (found["count"], found["min"], found["max"]) == (3, -1e308, 1.5e308)
    assert not np.isfinite(found["std"])


def test_counts_of_values_are_bounded() -> None:
    column = Texts("t")
    column.add((str(value), 1) for value in range(MOST_VALUES))
    assert column.counts is not None
    column.add([("one more", 2)])
    assert column.counts is None
    assert column.summary() == {"kind": "text", "count": MOST_VALUES + 2, "values": None}


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    line = "some text,12.5,{}\n"
    small = write(tmp_path / "small.csv", "t,x,y\n" + "".join(line.format(n) for n in range(2000)))
    large = write(tmp_path / "large.csv", "t,x,y\n" + "".join(line.format(n) for n in range(40_000)))
    peaks = []
    for path in (small, small, large):  # the first run has its imports in it
        tracemalloc.start()
        for _ in dataset.process(str(path), 1000, ALL, engine="csv"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]
    held = [pa.total_allocated_bytes() for _ in dataset.process(str(large), 1000, ALL, engine="pyarrow")]
    assert max(held) < 20 * len(line) * 1000


def test_blocks_are_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'a,"\n' + b'b,""\n' * 1_000_000)
    with contextlib.closing(TextSource(str(path), "test")) as source:
        pieces = list(Records(source, ",", "test").pieces(10))
    assert max(len(piece.data) for piece in pieces) < 3 * LONGEST_LINE
    assert sum(piece.broken for piece in pieces) == 1
    assert sum(piece.data.count(b"\n") for piece in pieces) == 1_000_000
    with pytest.raises(UsageError, match="a line of more than"):
        run(write(path, b"x\n" + b"x" * (3 * LONGEST_LINE)))


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", {}, "is empty, or no regular file"),
        ("x,x\n1,2\n", {}, "more than one column of the name 'x'"),
        ("x,,y\n1,2,3\n", {}, "must name every column"),
        ("x\n1\n", {"chunk_size": 0}, "chunk_size=0 is no number of rows"),
        ("x\n1\n", {"delimiter": '"'}, "delimiter='\"' must be one ASCII character"),
        ("x\n1\n", {"numeric_columns": ["z"]}, "numeric_columns: no column 'z'; there are: x"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(write(tmp_path / "a.csv", text), **more)


def test_without_pyarrow_the_standard_library_does_it(sales: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bridge_py.adapters.streams.arrow_block", None)
    assert run(sales)[-1]["engine"] == "csv"
    with pytest.raises(UsageError, match=r"pip install 'snakepit-trio\[pandas\]'"):
        run(sales, engine="pyarrow")
