"""Attacks of a worker through tables, frames and arrays: what is broken fails its call, and nothing else.

The broken parts are those that would crash a library, make it ask for memory that is not there, or make it go on for
ever. None may be changed after it was checked.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.wire import codec
from bridge_py.wire.arrow_streams import check_messages
from tests.helpers.broken_tables import SEEDS
from tests.helpers.forged_worker import words
from tests.helpers.hostile import ROOT, open_forged

ROWS = 777_777
HUGE = 1 << 40


def message(code: int, *content: Any) -> bytes:
    """A value that is one extension."""
    return msgspec.msgpack.encode(extension(code, *content))


def extension(code: int, *content: Any) -> Any:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(content))


def table(library: str, stream: Any) -> bytes:
    return message(20, library, "DataFrame" if library == "polars" else "Table", None, bytes(stream))


def array(descr: Any, shape: Any, data: bytes, order: str = "C") -> Any:
    return extension(16, descr, shape, order, data)


def stream_of(found: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(found, max_chunksize=ROWS)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def patched(stream: bytes, number: int, by: int) -> Iterator[bytes]:
    """The stream with each place of a number of eight bytes changed in turn, and with all of them."""
    old, new = struct.pack("<q", number), struct.pack("<q", by)
    yield stream.replace(old, new)
    at = -1
    while (at := stream.find(old, at + 1)) >= 0:
        yield stream[:at] + new + stream[at + 8 :]


def _broken_streams() -> Iterator[bytes]:
    plain = stream_of(pa.table({"a": np.arange(1111), "s": list(map(str, range(1111)))}))
    (size,) = {8 * 1111} & {number for (number,) in struct.iter_unpack("<q", plain[: len(plain) // 8 * 8])}
    for by in (HUGE, 1 << 47, (1 << 62) + 8, -8, -(1 << 62)):
        yield from patched(plain, size, by)  # sizes of buffers
    body = max(number for (number,) in struct.iter_unpack("<q", plain[:1000]) if number < len(plain))
    yield from patched(plain, body, 1 << 47)
    for size in range(0, len(plain) - 16, len(plain) // 50):
        yield plain[: size + 1]
    yield from (plain[:4] + number.to_bytes(4, "little") + plain[8:] for number in (1, 8, 2**31 - 1, 2**32 - 1))
    yield b"\xff\xff\xff\xff" + b"\x7f" * 100


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_a_stream_that_announces_what_it_does_not_hold(library: str) -> None:
    # A size that cannot be had makes polars abort the process.
    streams = list(_broken_streams())
    assert len(streams) > 60
    for stream in streams:
        with pytest.raises(snakepit.DecodeError, match="it is no table"):
            codec.decode(table(library, stream))


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_small_stream_that_becomes_a_large_one(library: str, compression: str) -> None:
    stream = stream_of(pa.table({"a": np.zeros(10_000_000)}), compression=compression)
    assert len(stream) < 1_000_000
    with pytest.raises(snakepit.DecodeError, match="compressed"):
        codec.decode(table(library, stream))


TEXTS = pa.array(["a" * 7, "b" * 6])
INDEXED = pa.array(["a", "b", "a", "b"]).dictionary_encode()
VIEWED = pa.array(["a" * 17], pa.string_view())
OFFSETS, INDICES = struct.Struct("<3i"), struct.Struct("<4i")
VIEW = struct.Struct("<i4sii")  # size, first bytes, number of the buffer, offset
RIGHT_VIEW = VIEW.pack(17, b"aaaa", 0, 0)
BAD_CONTENT = {
    "offset_behind_the_end": (TEXTS, OFFSETS.pack(0, 7, 13), OFFSETS.pack(0, 1 << 30, 13)),
    "negative_offset": (TEXTS, OFFSETS.pack(0, 7, 13), OFFSETS.pack(0, -9, 13)),
    "last_offset": (TEXTS, OFFSETS.pack(0, 7, 13), OFFSETS.pack(0, 7, 1 << 30)),
    "no_utf8": (TEXTS, b"aaaaaaabbbbbb", b"\xff" * 13),
    "index": (INDEXED, INDICES.pack(0, 1, 0, 1), INDICES.pack(0, 1, 0, 1 << 30)),
    "negative_index": (INDEXED, INDICES.pack(0, 1, 0, 1), INDICES.pack(0, 1, 0, -1)),
    "list": (pa.array([[1] * 7, [2] * 6]), OFFSETS.pack(0, 7, 13), OFFSETS.pack(0, 7, 1 << 30)),
    "view": (VIEWED, RIGHT_VIEW, VIEW.pack(17, b"aaaa", 0, 1 << 30)),
    "buffer_of_a_view": (VIEWED, RIGHT_VIEW, VIEW.pack(17, b"aaaa", 99, 0)),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_a_stream_whose_content_would_crash_its_reader(name: str, library: str) -> None:
    found, old, new = BAD_CONTENT[name]
    stream = stream_of(pa.table({"a": found}))
    assert old in stream
    with pytest.raises(snakepit.DecodeError, match="it is no table"):
        codec.decode(table(library, stream.replace(old, new)))


async def test_a_panic_fails_its_call_alone_and_neither_the_host_nor_the_worker() -> None:
    # polars panics when it makes columns of so many nulls. A panic is no `Exception`.
    (nulls, *_) = patched(stream_of(pa.table({"n": pa.nulls(ROWS)})), ROWS, HUGE)
    async with open_forged(concurrency=2) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "lend_honestly")
        with pytest.raises(snakepit.DecodeError, match="'say' sent back what cannot be read: it is no table"):
            await pool.execute("say", {"body": table("polars", nulls)})
        assert len(await pool.execute("lend_honestly")) == 200_000
        assert pool.get_stats().restarts == 0


def test_a_panic_of_any_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {})

    def decode(_value: Any) -> Any:
        raise panic("index out of bounds")

    snakepit.register_codec(_Panicking, "panicking", lambda _value: None, decode)
    body = codec.encode([_Panicking()]).body
    with pytest.raises(snakepit.DecodeError, match="a library panicked: index out of bounds"):
        codec.decode(body)


class _Panicking:
    """Has a codec that panics."""


# Headers of arrays.


BAD_ARRAYS = {
    "objects": array("|O", [1], bytes(8)),
    "objects_in_fields": array([["a", "|O"]], [1], bytes(8)),
    "objects_in_subarrays": array([["a", "|O", [2]]], [1], bytes(16)),
    "texts_of_pointers": array("T", [1], bytes(16)),
    "python_names": array("os.system", [1], bytes(8)),
    "negative": array("<i8", [-1], bytes(8)),
    "two_negatives": array("<i8", [-1, -1], bytes(8)),
    "overflow": array("<i8", [1 << 62, 4], bytes(8)),
    "overflow_to_the_right_size": array("<i8", [1 << 32, 1 << 32, 1 << 32], b""),
    "beyond_64_bits": array("<i8", [extension(1, 0)], bytes(8)),
    "too_short": array("<i8", [2], bytes(8)),
    "too_long": array("<i8", [1], bytes(16)),
    "huge_items": array([["a", "|V1", [1 << 31]]], [1], bytes(8)),
    "many_dimensions": array("|u1", [1] * 100, b"1"),
    "a_dtype_of_code": array("(" * 200, [1], bytes(8)),
    "a_shape_without_end": array("<i8", extension(21, "range", [0, 1 << 40, 1]), bytes(8)),
    "no_bytes": array("<i8", [1], 8),  # type: ignore[arg-type]  # a size in place of bytes is the attack
    "a_range_for_bytes": array("|u1", [8], extension(21, "range", [0, 8, 1])),
    "memoryview_of_objects": extension(17, "O", [1], bytes(8)),
    "negative_memoryview": extension(17, "b", [-8], bytes(8)),
    "overflow_of_a_memoryview": extension(17, "B", [1 << 32, 1 << 32], bytes(8)),
    "array_of_objects": extension(18, "O", 8, "little", bytes(8)),
    "part_of_an_item": extension(18, "q", 8, "little", bytes(7)),
    "outside_of_the_area": extension(15, msgspec.msgpack.Ext(13, msgspec.msgpack.encode((-8, 16)))),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_the_header_of_an_array(name: str) -> None:
    with pytest.raises(snakepit.DecodeError):
        codec.decode(msgspec.msgpack.encode(BAD_ARRAYS[name]))


# Frames of pandas.


INDEX = ["RangeIndex", [0, 2, 1], None, [None]]
BILLIONS = ["RangeIndex", [0, HUGE, 1], None, [None]]
NUMPY = ["numpy", array("<i8", [2], bytes(16))]
ENDLESS = extension(21, "range", [0, HUGE, 1])
MOMENTS = ["DatetimeArray", [NUMPY[1], "ns", None, None]]
DIGITS = "1" * 200_000  # pandas would read them for hours
WORDS = ["objects", ["a", "b"], None, [None]]
ABOUT = [None, True]


def multi_index(*codes: int) -> Any:
    return "Index", ["MultiIndex", [WORDS], [array("|i1", [len(codes)], struct.pack(f"{len(codes)}b", *codes))], [None]]


BAD_FRAMES = {
    "long_index": ("DataFrame", [INDEX, BILLIONS, [NUMPY, NUMPY], ABOUT]),
    "block_without_end": ("DataFrame", [INDEX, INDEX, ENDLESS, ABOUT]),
    "a_column_without_end": ("Series", [[None], INDEX, ["numpy", ENDLESS], ABOUT]),
    "cells_without_end": ("ExtensionArray", ["objects", msgspec.msgpack.encode(ENDLESS)]),
    "texts_without_end": ("ExtensionArray", ["StringArray", [msgspec.msgpack.encode(ENDLESS), ["python", False]]]),
    "labels_outside_of_a_multi_index": multi_index(0, 100),
    "labels_below_a_multi_index": multi_index(0, -2),
    "categories": ("ExtensionArray", ["Categorical", [array("|i1", [2], b"\x00\x64"), WORDS, False]]),
    "codes_without_end": ("ExtensionArray", ["Categorical", [ENDLESS, WORDS, False]]),
    "periods_of_digits_without_end": ("ExtensionArray", ["PeriodArray", [NUMPY[1], DIGITS]]),
    "period_of_digits_without_end": ("Period", [1, DIGITS]),
    "moments_of_digits_without_end": ("ExtensionArray", ["DatetimeArray", [NUMPY[1], "ns", None, DIGITS]]),
    "index_of_digits_without_end": ("Index", ["DatetimeIndex", MOMENTS, DIGITS, [None]]),
    "a_short_mask": ("ExtensionArray", ["IntegerArray", [NUMPY[1], array("|b1", [1], b"\x00")]]),
    "a_mask_without_end": ("ExtensionArray", ["IntegerArray", [NUMPY[1], ENDLESS]]),
    "moments_of_an_unknown_unit": ("ExtensionArray", ["DatetimeArray", [NUMPY[1], "parsec", None, None]]),
    "moments_of_objects": ("ExtensionArray", ["DatetimeArray", [["objects", ["a"]], "ns", None, None]]),
    "moments_in_a_file": ("ExtensionArray", ["DatetimeArray", [NUMPY[1], "ns", "../../etc/passwd", None]]),
    "periods_without_end": ("ExtensionArray", ["PeriodArray", [ENDLESS, "M"]]),
    "a_class_of_another_name": ("ExtensionArray", ["SparseArray", [NUMPY[1]]]),
    "an_attribute": ("__class__", []),
    "a_stream_that_is_none": ("ExtensionArray", ["ArrowExtensionArray", b"junk"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_that_pandas_would_read_wrongly_or_never_to_its_end(name: str) -> None:
    expected = (
        "in place of a|no text of up to"
        if name.endswith("_without_end")
        else "not as long as"
        if name == "long_index"
        else None
    )
    with pytest.raises(snakepit.DecodeError, match=expected):
        codec.decode(message(22, *BAD_FRAMES[name]))


# Later changes.


def _checked_values() -> list[Any]:
    texts = [f"{number:020}" for number in range(1_000)]
    multi = pd.MultiIndex.from_arrays([texts, list(range(1_000))])
    moments = pd.date_range("2020-01-01", periods=2_000)
    return [
        *(pa.table({"a": texts}), pa.record_batch({"a": texts}), pa.array(texts), pa.chunked_array([texts])),
        *(pl.DataFrame({"a": texts}), pl.Series("a", texts)),
        *(pd.DataFrame({"a": range(1_000)}, index=multi), pd.Series(pd.Categorical(texts))),
        *(pd.Series(texts, dtype=kind) for kind in (object, "string[python]", "string[pyarrow]")),
        *(pd.Series(moments), pd.Series(moments.to_period("D")), pd.Series(pd.interval_range(0, 2_000))),
        *(pd.Series(range(2_000), dtype="Int64"), pd.Series(texts, dtype=pd.ArrowDtype(pa.string()))),
    ]  # fmt: skip


@pytest.mark.parametrize("value", _checked_values(), ids=lambda value: type(value).__name__)
def test_the_sender_cannot_change_what_was_checked(value: Any) -> None:
    encoded = codec.encode(value, beside=1_000)
    shared = bytearray(b"".join(encoded.buffers))
    assert shared
    found = codec.decode(encoded.body, memoryview(shared).toreadonly())
    shared[:] = b"\xff" * len(shared)
    assert found.equals(value)


async def test_a_worker_that_writes_to_a_table_in_shared_memory_changes_nothing() -> None:
    async with open_forged() as pool:
        found = await pool.execute("lend_table", {"rows": 20_000})
        await pool.execute("scribble")
        assert found.equals(words(20_000))


# At random.


@pytest.mark.parametrize("kind", SEEDS)
async def test_what_is_broken_at_random_ends_no_process(kind: str) -> None:
    # Each input is a value, or a `DecodeError`; anything else ends the process with another exit code.
    command = [sys.executable, "-m", "tests.helpers.broken_tables", kind, "1", "6000"]
    result = await trio.run_process(command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False)
    assert (result.returncode, b"6000 inputs" in result.stdout) == (0, True), result.stderr.decode()[-3000:]


@pytest.mark.parametrize("kind", ["polars", "arrow"])
def test_what_is_honest_is_taken(kind: str) -> None:
    for value in SEEDS[kind]():
        found = codec.decode(codec.encode([value]).body)[0]
        assert found.equals(value)
    many = pl.concat([pl.DataFrame({"a": ["x"]})] * 300, rechunk=False)
    sink = io.BytesIO()
    many.write_ipc_stream(sink)
    check_messages(sink.getbuffer())
    check_messages(stream_of(pa.table({"a": []})))
