"""Codecs of data frames and tables: pandas, polars and pyarrow, as an Arrow IPC stream.

The payload is an array: library, class, name (of a series), data. Format: https://arrow.apache.org/docs/format/IPC.html
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from .arrays import library
from .errors import CodecError
from .extensions import hashable
from .registry import Refused

if TYPE_CHECKING:
    from .codec import Decoder, Encoder

_TABLE: Final = 20


def _encode_pandas(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "pandas", "DataFrame", None, _stream_of(_to_arrow(value)))


def _encode_pandas_series(encoder: Encoder, value: Any) -> Any:
    frame = value.to_frame(name="values")
    return _wrap(encoder, "pandas", "Series", value.name, _stream_of(_to_arrow(frame)))


def _encode_polars(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "polars", "DataFrame", None, _polars_stream(value))


def _encode_polars_series(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "polars", "Series", value.name, _polars_stream(value.to_frame("values")))


def _encode_table(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "pyarrow", "Table", None, _stream_of(value))


def _encode_batch(encoder: Encoder, value: Any) -> Any:
    return _wrap(encoder, "pyarrow", "RecordBatch", None, _stream_of(value))


def _encode_timestamp(encoder: Encoder, value: Any) -> Any:
    if value.nanosecond:
        raise Refused("a pandas.Timestamp with nanoseconds cannot be sent: send .to_datetime64()")
    return encoder.prepare(value.to_pydatetime())


def _encode_duration(encoder: Encoder, value: Any) -> Any:
    if value.nanoseconds:
        raise Refused("a pandas.Timedelta with nanoseconds cannot be sent: send .to_timedelta64()")
    return encoder.prepare(value.to_pytimedelta())


def _wrap(encoder: Encoder, library_name: str, kind: str, name: Any, data: Any) -> Any:
    return encoder.wrap(_TABLE, (library_name, kind, encoder.prepare(name), encoder.buffer(data)))


def _to_arrow(frame: Any) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise Refused("a pandas object travels as an Arrow table: install pyarrow on both sides") from None
    if frame.columns.inferred_type.startswith("mixed"):
        raise Refused("a frame whose column names are of several types cannot be sent: rename them")
    try:
        return pa.Table.from_pandas(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise Refused(f"a pandas object that is no Arrow table cannot be sent: {error}") from None


def _stream_of(table: Any) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return memoryview(sink.getvalue())


def _polars_stream(frame: Any) -> memoryview:
    sink = io.BytesIO()
    try:
        frame.write_ipc_stream(sink)
    except Exception as error:  # polars raises errors of its own, which need not be imported here
        raise Refused(f"a polars object that is no Arrow table cannot be sent: {error}") from None
    return sink.getbuffer()


def _decode_table(decoder: Decoder, payload: memoryview) -> Any:
    library_name, kind, name, data = decoder.value(payload)
    if library_name == "polars":
        return _decode_polars(kind, name, data)
    pa = library("pyarrow")
    table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    if library_name == "pandas":
        library("pandas")
        # Arrow lends some columns its own memory, which is read-only; a frame is its receiver's to change.
        frame = table.to_pandas().copy()
        return frame["values"].rename(hashable(name)) if kind == "Series" else frame
    if library_name != "pyarrow":
        raise CodecError(f"a table of the unknown library {library_name!r} has come: the other side is newer")
    return table.combine_chunks().to_batches()[0] if kind == "RecordBatch" else table


def _decode_polars(kind: str, name: str, data: Any) -> Any:
    polars = library("polars")
    frame = polars.read_ipc_stream(io.BytesIO(data))
    return frame["values"].rename(name) if kind == "Series" else frame


ENCODERS: Final = {
    "pandas.DataFrame": _encode_pandas,
    "pandas.Series": _encode_pandas_series,
    "pandas.Timestamp": _encode_timestamp,
    "pandas.Timedelta": _encode_duration,
    "polars.DataFrame": _encode_polars,
    "polars.Series": _encode_polars_series,
    "pyarrow.Table": _encode_table,
    "pyarrow.RecordBatch": _encode_batch,
}
DECODERS: Final = {_TABLE: _decode_table}
