"""Codecs of pandas: frames, series, indexes, arrays and scalars. Each column travels as the kind of array that it is.

The payload is an array: the kind of the value, and the parts that it is made from. Arrow would be one format for all,
but it changes what it lacks: labels that are bools, periods, ints beside None, sets and lists in cells. Only data that
pandas keeps in Arrow's memory travel as an Arrow IPC stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .arrays import library
from .errors import CodecError
from .extensions import to_zone, zone_of
from .keys import hashable
from .registry import Decoder, Encoder, Refused, items_of, type_of

_PANDAS: Final = 22
_LONGEST_FREQ: Final = 100  # characters
Parts = Callable[["Encoder", Any], Any]  # gives the parts that a value is made from; raises `Refused`
_INDEXES: Final = (
    "Index", "RangeIndex", "MultiIndex", "CategoricalIndex", "DatetimeIndex", "TimedeltaIndex", "PeriodIndex",
    "IntervalIndex",
)  # fmt: skip
_MASKED: Final = ("IntegerArray", "FloatingArray", "BooleanArray")


def _encoder_of(name: str, parts: Parts) -> Callable[[Encoder, Any], Any]:
    def encode(encoder: Encoder, value: Any) -> Any:
        return encoder.wrap(_PANDAS, (name, parts(encoder, value)))

    return encode


# Arrays.


def _array(encoder: Encoder, value: Any) -> Any:
    """Encode a column's values, which are an array of numpy's or of pandas'. Raises `Refused`."""
    name = type(value).__name__
    if name == "ndarray":
        return ("objects", encoder.cells(value)) if value.dtype.hasobject else ("numpy", encoder.prepare(value))
    if name not in _ARRAYS or not _is_pandas(value):
        remedy = ".sparse.to_dense()" if name == "SparseArray" else ".astype(object)"
        raise Refused(f"a pandas array of type {type_of(value)} cannot be sent: convert it with {remedy}")
    return (name, _ARRAYS[name][0](encoder, value))


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


def _to_array(content: Any, decoder: Decoder) -> Any:
    name, parts = content
    if name == "objects":
        return _objects(_cells(parts, decoder))
    return _numbers(parts) if name == "numpy" else _ARRAYS[name][1](parts, decoder)


def _numbers(found: Any) -> Any:
    """Check that a part is an array of numpy's: other objects may be made to stand for more items than have come."""
    if type(found) is not library("numpy").ndarray:
        raise TypeError(f"a {type(found).__name__} in place of an array")
    return found


def _cells(data: Any, decoder: Decoder) -> Any:
    return decoder.whole(memoryview(decoder.own(data)))


def _objects(cells: Any) -> Any:
    cells = items_of(cells)
    return library("numpy").fromiter(cells, dtype=object, count=len(cells))


def _categorical(encoder: Encoder, value: Any) -> Any:
    return encoder.prepare(value.codes), _index(encoder, value.categories), value.ordered


def _to_categorical(parts: Any, decoder: Decoder) -> Any:
    pd = library("pandas")
    codes, categories, ordered = parts
    return pd.Categorical.from_codes(
        _numbers(codes).copy(), dtype=pd.CategoricalDtype(_to_index(categories, decoder), ordered)
    )


def _moments(encoder: Encoder, value: Any) -> Any:
    numbers = value.asi8 if hasattr(value, "asi8") else value.view("i8")
    return (
        encoder.prepare(numbers),
        value.unit,
        _zone(getattr(value, "tz", None)),
        _freq_text(getattr(value, "freq", None)),
    )


def _zone(zone: Any) -> Any:
    if type(zone).__module__.startswith("pytz"):
        return ["pytz", str(zone)]
    return zone_of(zone)


def _to_zone(found: Any) -> Any:
    if isinstance(found, list) and found[0] == "pytz":
        return library("pytz").timezone(found[1])
    return to_zone(found)


def _to_datetimes(parts: Any, _decoder: Decoder) -> Any:
    pd = library("pandas")
    numbers, unit, zone, freq = parts
    index = pd.DatetimeIndex(_numbers(numbers).copy().view(f"M8[{unit}]"))
    if zone is not None:
        index = index.tz_localize("UTC").tz_convert(_to_zone(zone))
    return _with_freq(index, freq).array


def _to_timedeltas(parts: Any, _decoder: Decoder) -> Any:
    pd = library("pandas")
    numbers, unit, _zone, freq = parts
    return _with_freq(pd.TimedeltaIndex(_numbers(numbers).copy().view(f"m8[{unit}]")), freq).array


def _with_freq(index: Any, freq: str | None) -> Any:
    if freq is None:
        return index
    return type(index)(index, freq=library("pandas").tseries.frequencies.to_offset(_to_freq(freq)))


def _to_freq(text: str) -> str:
    # pandas reads it with a regular expression, which takes hours for 100,000 digits.
    if type(text) is not str or len(text) > _LONGEST_FREQ:
        raise ValueError(f"a frequency that is no text of up to {_LONGEST_FREQ} characters: {text!r:.50}")
    return text


def _freq_text(freq: Any) -> str | None:
    if freq is None:
        return None
    to_offset = library("pandas").tseries.frequencies.to_offset
    try:
        is_same = to_offset(freq.freqstr) == freq
    except Exception:
        is_same = False
    if not is_same:
        raise Refused(
            f"the frequency {freq!r} cannot be sent, its text {freq.freqstr!r} is not all of it: set it to None"
        )
    text: str = freq.freqstr
    return text


def _period_freq(value: Any) -> str:
    pd = library("pandas")
    text: str = value.freqstr
    try:
        is_same = pd.PeriodDtype(text) == pd.PeriodDtype(value.freq)
    except Exception:
        is_same = False
    if not is_same:
        raise Refused(f"periods of the frequency {value.freq!r} cannot be sent: convert them with .asfreq()")
    return text


def _periods(encoder: Encoder, value: Any) -> Any:
    return encoder.prepare(value.asi8), _period_freq(value)


def _to_periods(parts: Any, _decoder: Decoder) -> Any:
    pd = library("pandas")
    ordinals, freq = parts
    return pd.PeriodIndex.from_ordinals(_numbers(ordinals).copy(), freq=_to_freq(freq)).array


def _intervals(encoder: Encoder, value: Any) -> Any:
    return _index(encoder, value.left), _index(encoder, value.right), value.closed


def _to_intervals(parts: Any, decoder: Decoder) -> Any:
    left, right, closed = parts
    ends = _to_index(left, decoder), _to_index(right, decoder)
    return library("pandas").arrays.IntervalArray.from_arrays(*ends, closed=closed)


def _masked(encoder: Encoder, value: Any) -> Any:
    return encoder.prepare(value._data), encoder.prepare(value._mask)


def _to_masked(name: str) -> Callable[[Any, Decoder], Any]:
    return lambda parts, _decoder: getattr(library("pandas").arrays, name)(*map(_numbers, parts), copy=True)


def _strings(encoder: Encoder, value: Any) -> Any:
    return encoder.cells(value.to_numpy(object, na_value=None)), _string_dtype(value.dtype)


def _string_dtype(dtype: Any) -> Any:
    return dtype.storage, type(dtype.na_value).__name__ != "NAType"


def _to_string_dtype(storage: str, is_nan: bool) -> Any:
    pd = library("pandas")
    return pd.StringDtype(storage, na_value=float("nan")) if is_nan else pd.StringDtype(storage)


def _to_strings(parts: Any, decoder: Decoder) -> Any:
    cells, dtype = parts
    return library("pandas").array(_objects(_cells(cells, decoder)), dtype=_to_string_dtype(*dtype))


def _arrow_strings(encoder: Encoder, value: Any) -> Any:
    return encoder.buffer(_arrow_stream(value)), _string_dtype(value.dtype)


def _to_arrow_strings(parts: Any, decoder: Decoder) -> Any:
    data, dtype = parts
    return _to_string_dtype(*dtype).__from_arrow__(_from_arrow(decoder.own(data)))


def _arrow(encoder: Encoder, value: Any) -> Any:
    return encoder.buffer(_arrow_stream(value))


def _to_arrow(data: Any, decoder: Decoder) -> Any:
    return library("pandas").arrays.ArrowExtensionArray(_from_arrow(decoder.own(data)))


def _arrow_stream(value: Any) -> memoryview:
    try:
        import pyarrow as pa
    except ImportError:
        raise Refused("a pandas column of Arrow's travels as an Arrow table: install pyarrow on both sides") from None
    from .tables import stream_of_chunks

    found = pa.array(value, from_pandas=False) if not hasattr(value, "__arrow_array__") else value.__arrow_array__()
    return stream_of_chunks(pa.chunked_array(found) if not isinstance(found, pa.ChunkedArray) else found)


def _from_arrow(data: Any) -> Any:
    from .tables import checked, read_stream

    return checked(read_stream(bytes(data)).read_all()).column(0)


def _plain(encoder: Encoder, value: Any) -> Any:
    return _array(encoder, value.to_numpy())


def _to_plain(parts: Any, decoder: Decoder) -> Any:
    return library("pandas").arrays.NumpyExtensionArray(_to_array(parts, decoder).copy())


_ARRAYS: Final[dict[str, tuple[Parts, Callable[[Any, Any], Any]]]] = {
    "Categorical": (_categorical, _to_categorical),
    "DatetimeArray": (_moments, _to_datetimes),
    "TimedeltaArray": (_moments, _to_timedeltas),
    "PeriodArray": (_periods, _to_periods),
    "IntervalArray": (_intervals, _to_intervals),
    **{name: (_masked, _to_masked(name)) for name in _MASKED},
    "StringArray": (_strings, _to_strings),
    "ArrowStringArray": (_arrow_strings, _to_arrow_strings),
    "ArrowExtensionArray": (_arrow, _to_arrow),
    "NumpyExtensionArray": (_plain, _to_plain),
}


# Indexes.


def _index(encoder: Encoder, value: Any) -> Any:
    """Encode an index, which holds labels. Raises `Refused`."""
    kind = type(value).__name__
    if kind not in _INDEXES or not _is_pandas(value):
        raise Refused(f"an index of type {type_of(value)} cannot be sent: use one of pandas' own")
    if kind == "MultiIndex":
        levels = [_index(encoder, level) for level in value.levels]
        return kind, levels, [encoder.prepare(codes) for codes in value.codes], encoder.keys_of(value.names)
    if kind == "RangeIndex":
        return kind, (value.start, value.stop, value.step), None, encoder.keys_of([value.name])
    if value.dtype == object:
        return "objects", encoder.keys_of(value), None, encoder.keys_of([value.name])
    array = value.to_numpy() if _is_numpy(value.dtype) else value.array
    freq = _freq_text(getattr(value, "freq", None)) if kind in ("DatetimeIndex", "TimedeltaIndex") else None
    return kind, _array(encoder, array), freq, encoder.keys_of([value.name])


def _is_numpy(dtype: Any) -> bool:
    return isinstance(dtype, library("numpy").dtype)


def _to_index(content: Any, decoder: Decoder) -> Any:
    pd = library("pandas")
    kind, labels, rest, names = content
    names = list(map(hashable, names))
    if kind == "MultiIndex":
        # pandas keeps the codes that it has checked, and reads the levels with them.
        codes = [_numbers(codes).copy() for codes in rest]
        return pd.MultiIndex([_to_index(level, decoder) for level in labels], codes, names=names)
    if kind == "RangeIndex":
        return pd.RangeIndex(*labels, name=names[0])
    if kind == "objects":
        return pd.Index(_objects(list(map(hashable, labels))), dtype=object, name=names[0], tupleize_cols=False)
    return _with_freq(pd.Index(_to_array(labels, decoder), name=names[0], copy=True), rest)


# Frames and series.


def _frame(encoder: Encoder, value: Any) -> Any:
    columns, index = _index(encoder, value.columns), _index(encoder, value.index)
    kinds = set(value.dtypes)
    if len(kinds) == 1 and value.shape[1] > 1 and _is_numpy(kind := kinds.pop()) and not kind.hasobject:
        return columns, index, encoder.prepare(value.to_numpy()), _about(encoder, value)
    return columns, index, [_column(encoder, value, at) for at in range(value.shape[1])], _about(encoder, value)


def _column(encoder: Encoder, frame: Any, at: int) -> Any:
    try:
        return _array(encoder, _values_of(frame.iloc[:, at]))
    except Refused as error:
        raise Refused(str(error), f"[{frame.columns[at]!r:.100}]{error.path}") from None


def _values_of(series: Any) -> Any:
    return series.to_numpy() if _is_numpy(series.dtype) else series.array


def _about(encoder: Encoder, value: Any) -> Any:
    return encoder.prepare(value.attrs or None), value.flags.allows_duplicate_labels


def _to_frame(parts: Any, decoder: Decoder) -> Any:
    pd = library("pandas")
    columns, index, arrays, about = parts
    columns, index = _to_index(columns, decoder), _to_index(index, decoder)
    if isinstance(arrays, list):
        found = {at: _as_series(_to_array(array, decoder)) for at, array in enumerate(arrays)}
        # pandas would fill columns up to the length of the index, which may be a range of any length.
        if any(len(column) != len(index) for column in found.values()):
            raise ValueError(f"columns that are not as long as the index, {len(index)}")
        frame = pd.DataFrame(found, index=range(len(index)))
    else:
        frame = pd.DataFrame(_numbers(arrays), copy=True)
    frame.columns, frame.index = columns, index
    return _with_about(frame, about)


def _as_series(array: Any) -> Any:
    # Without a dtype pandas would turn an array of objects into one of texts.
    pd = library("pandas")
    return pd.Series(array, dtype=array.dtype, copy=True)


def _with_about(value: Any, about: Any) -> Any:
    attrs, allows_duplicates = about
    value.attrs.update(attrs or {})
    return value if allows_duplicates else value.set_flags(allows_duplicate_labels=False)


def _series(encoder: Encoder, value: Any) -> Any:
    name = encoder.keys_of([value.name])
    return name, _index(encoder, value.index), _array(encoder, _values_of(value)), _about(encoder, value)


def _to_series(parts: Any, decoder: Decoder) -> Any:
    name, index, array, about = parts
    series = _as_series(_to_array(array, decoder))
    series.index = _to_index(index, decoder)
    series.name = hashable(name[0])
    return _with_about(series, about)


# Scalars.


def _timestamp(_encoder: Encoder, value: Any) -> Any:
    return int(value.asm8.view("i8")), value.unit, _zone(value.tz)


def _to_timestamp(parts: Any, _decoder: Decoder) -> Any:
    number, unit, zone = parts
    moment = library("pandas").Timestamp(library("numpy").datetime64(number, unit))
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(_to_zone(zone))


def _timedelta(_encoder: Encoder, value: Any) -> Any:
    return int(value.asm8.view("i8")), value.unit


def _to_timedelta(parts: Any, _decoder: Decoder) -> Any:
    return library("pandas").Timedelta(library("numpy").timedelta64(*parts))


def _to_period(parts: Any, _decoder: Decoder) -> Any:
    return library("pandas").Period(ordinal=parts[0], freq=_to_freq(parts[1]))


def _interval(encoder: Encoder, value: Any) -> Any:
    return encoder.prepare(value.left), encoder.prepare(value.right), value.closed


_OTHERS: Final[dict[str, tuple[Parts, Callable[[Any, Any], Any]]]] = {
    "DataFrame": (_frame, _to_frame),
    "Series": (_series, _to_series),
    "Index": (_index, _to_index),
    "ExtensionArray": (_array, _to_array),
    "Timestamp": (_timestamp, _to_timestamp),
    "Timedelta": (_timedelta, _to_timedelta),
    "Period": (lambda _encoder, value: (value.ordinal, _period_freq(value)), _to_period),
    "Interval": (_interval, lambda parts, _decoder: library("pandas").Interval(*parts)),
    "NaTType": (lambda _encoder, _value: None, lambda _parts, _decoder: library("pandas").NaT),
    "NAType": (lambda _encoder, _value: None, lambda _parts, _decoder: library("pandas").NA),
}


def _decode(decoder: Decoder, payload: memoryview) -> Any:
    name, parts = decoder.whole(payload)
    if name not in _OTHERS:
        raise CodecError(f"a {name!r:.100} of pandas has come, which is not known here: the other side is newer")
    library("pandas")
    return _OTHERS[name][1](parts, decoder)


ENCODERS: Final = {
    **{f"pandas.{name}": _encoder_of(name, parts) for name, (parts, _decode_parts) in _OTHERS.items()},
    **{f"pandas.{name}": _encoder_of("Index", _index) for name in _INDEXES},
}
DECODERS: Final = {_PANDAS: _decode}
