"""Codecs of tables: polars and pyarrow, as an Arrow IPC stream.

The payload is an array: library, class, name (of a series), data. Format: https://arrow.apache.org/docs/format/IPC.html
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, Final

from .arrays import library
from .arrow_streams import check_messages
from .errors import CodecError
from .registry import Decoder, Encoder, Refused, is_panic

_TABLE: Final = 20
_EXTENSION: Final = b"ARROW:extension:name"


def _encode_polars(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "polars", "DataFrame", None, _polars_stream(value))


def _encode_polars_series(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "polars", "Series", value.name, _polars_stream(value.to_frame()))


def _encode_table(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "pyarrow", "Table", None, stream_of(value.schema, [value]))


def _encode_batch(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "pyarrow", "RecordBatch", None, stream_of(value.schema, [value]))


def _encode_array(encoder: Encoder, value: Any) -> Any:
    import pyarrow as pa

    batch = pa.record_batch([value], names=[""])
    return _wrap(encoder, "pyarrow", "Array", None, stream_of(batch.schema, [batch]))


def _encode_chunked_array(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "pyarrow", "ChunkedArray", None, stream_of_chunks(value))


def _wrap(encoder: Encoder, library_name: str, kind: str, name: Any, data: Any) -> Any:
    return encoder.wrap(_TABLE, (library_name, kind, encoder.prepare(name), encoder.buffer(data)))


def stream_of_chunks(value: Any) -> memoryview:
    """Write a chunked array as the one column of a stream. Raises `Refused`."""
    import pyarrow as pa

    table = pa.table([value], names=[""])
    return stream_of(table.schema, [table])


def stream_of(schema: Any, parts: list[Any]) -> memoryview:
    """Write tables or batches of a schema as a stream, from which the receiver reads the same. Raises `Refused`."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, schema) as writer:
            for part in parts:
                writer.write(part)
        data = sink.getvalue()
        # This copies nothing. The receiver makes the same check, because broken data would crash it.
        found = checked(pa.ipc.open_stream(data).read_all())
        is_same = found.schema.equals(schema, check_metadata=True) and found.num_rows == sum(map(len, parts))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise Refused(f"pyarrow cannot send it: {error}") from None
    if not is_same:
        raise Refused(f"a table of the schema {schema.to_string()!r:.300} would arrive with another: cast its columns")
    return memoryview(data)


def read_stream(data: bytes | memoryview) -> Any:
    """Open the reader of a stream, which nobody can change any more.

    Raises `CodecError` for types that are not known here, and `ValueError` for a stream that announces what it does
    not hold.
    """
    pa = library("pyarrow")
    check_messages(data)
    reader = pa.ipc.open_stream(pa.py_buffer(data))
    for field in reader.schema:
        _check_known(field)
    return reader


def checked(found: Any) -> Any:
    """Check a table, batch or array that has come. Raises `pyarrow.ArrowInvalid` if reading it would crash."""
    found.validate(full=True)
    return found


def _check_known(field: Any) -> None:
    # pyarrow reads a type that it does not know as the type of its storage, and keeps the type's name with the field.
    if field.metadata and _EXTENSION in field.metadata:
        name = field.metadata[_EXTENSION].decode(errors="replace")
        raise CodecError(f"the column {field.name!r} has the Arrow extension type {name!r}: register it on both sides")
    for index in range(field.type.num_fields):
        child = field.type.field(index) if hasattr(field.type, "field") else None
        if child is not None:
            _check_known(child)


def _polars_stream(frame: Any) -> memoryview:
    import polars as pl

    for name, dtype in frame.schema.items():
        if _has_objects(dtype):
            text = f"a polars column of dtype {dtype} cannot be sent: it holds Python objects; send .to_list()"
            raise Refused(text, f"[{name!r}]")
    sink = io.BytesIO()
    try:
        with _without_panic():
            frame.write_ipc_stream(sink, compression="uncompressed")
            few = io.BytesIO()
            frame.clear().write_ipc_stream(few)
            found = pl.read_ipc_stream(io.BytesIO(few.getvalue())).schema
    except Exception as error:  # polars raises errors of its own, which need not be imported here
        raise Refused(f"a polars object that is no Arrow table cannot be sent: {error}") from None
    for (name, dtype), arrived in zip(frame.schema.items(), found.values(), strict=True):
        if dtype != arrived:
            raise Refused(f"a polars column of dtype {dtype} would arrive as {arrived}: cast it", f"[{name!r}]")
    if not frame.width and frame.height:
        raise Refused("a polars frame with rows and without columns cannot be sent: select a column")
    return sink.getbuffer()


@contextlib.contextmanager
def _without_panic() -> Iterator[None]:
    """Turn a panic of Rust's, which is no `Exception`, into a `ValueError`: the operation is impossible."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise ValueError(f"polars panicked: {error}") from None  # noqa: ASYNC104 - there is no trio here


def _has_objects(dtype: Any) -> bool:
    inner = [getattr(dtype, "inner", None), *(field.dtype for field in getattr(dtype, "fields", None) or ())]
    return str(dtype).startswith("Object") or any(part is not None and _has_objects(part) for part in inner)


def _decode_table(decoder: Decoder, payload: memoryview) -> Any:
    library_name, kind, name, data = decoder.value(payload)
    data = decoder.own(data)
    if library_name == "polars":
        return _decode_polars(kind, name, data)
    if library_name != "pyarrow" or kind not in ("Table", "RecordBatch", "Array", "ChunkedArray"):
        raise CodecError(f"a table of the unknown library {library_name!r} has come: the other side is newer")
    reader = read_stream(data)
    if kind in ("Table", "ChunkedArray"):
        table = checked(reader.read_all())
        return table if kind == "Table" else table.column(0)
    batch = checked(reader.read_next_batch())
    return batch if kind == "RecordBatch" else batch.column(0)


def _decode_polars(kind: str, name: str, data: Any) -> Any:
    polars = library("polars")
    check_messages(data)
    with _without_panic():
        frame = polars.read_ipc_stream(io.BytesIO(data))
    return frame.to_series().rename(name) if kind == "Series" else frame


ENCODERS: Final = {
    "polars.DataFrame": _encode_polars,
    "polars.Series": _encode_polars_series,
    "pyarrow.Table": _encode_table,
    "pyarrow.RecordBatch": _encode_batch,
    "pyarrow.Array": _encode_array,
    "pyarrow.ChunkedArray": _encode_chunked_array,
}
DECODERS: Final = {_TABLE: _decode_table}
