"""Finds the codec that sends a type, and the codec that reads an extension.

Types are found by name, so that a library's codec is loaded, and the library imported, only when one of its values
is met.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

import msgspec

from .errors import CodecError, UsageError
from .keys import check_hashes, hashable

T = TypeVar("T")


class Encoder(Protocol):
    """The methods that a codec encodes with. All of them raise `Refused` for a value that cannot be sent."""

    def prepare(self, value: Any) -> Any:
        """Turn a value into types that MessagePack has."""

    def items(self, value: Iterable[Any]) -> Any:
        """Prepare a tuple, or another sequence of items."""

    def extension(self, code: int, content: Any) -> Any:
        """Make an extension whose payload is a value that is not prepared yet."""

    def keys(self, keys: Collection[Any]) -> list[Any]:
        """Prepare keys of a dict, or items of a set, which must all arrive hashable and different."""
        ...

    def keys_of(self, keys: Iterable[Any]) -> list[Any]:
        """Prepare labels, as `keys` does, except that some may be equal."""
        ...

    def cells(self, values: Iterable[Any]) -> Any:
        """Encode the cells of a column as a buffer, so that their number has no limit. Tuples stay tuples."""

    def pairs(self, code: int, value: dict[Any, Any]) -> Any:
        """Put a dict with any keys into an extension."""

    def prepare_pairs(self, value: dict[Any, Any]) -> list[Any]:
        """Prepare the pairs of a dict with any keys."""
        ...

    def wrap(self, code: int, prepared: Any) -> Any:
        """Make an extension whose payload is prepared already. Raises `Refused` for an object that may not be sent."""

    def buffer(self, data: memoryview | bytes) -> Any:
        """Return the bytes of a small buffer; add a large one to the area beside the message, and return its place."""


class Decoder(Protocol):
    """The methods that a codec decodes with."""

    is_plain: bool
    is_special: bool

    def own(self, data: bytes | memoryview) -> bytes | memoryview:
        """Return a buffer that nobody can change any more: a copy, if the sender still can."""
        ...

    def value(self, payload: memoryview) -> Any:
        """Decode the value that is an extension's payload."""

    def whole(self, payload: memoryview) -> Any:
        """Decode the value that is an extension's payload, without marks, for code that knows no marks."""

    def marked(self, kind: str, member: str | None, content: Any) -> Any:
        """Return an enum, or an object with fields: `Marked`, or only its content if the receiver has no hints."""

    def scalar(self, value: Any) -> Any:
        """Return a scalar of numpy's, or Python's number for it if the receiver knows no others."""


Encode = Callable[[Encoder, Any], Any]
Decode = Callable[[Decoder, memoryview], Any]

_LONGEST_KEY: Final = 100
_MARKED: Final = 23
_CUSTOM: Final = 32
_MODULE_OF: Final = {
    "builtins": "extensions",
    "datetime": "extensions",
    "decimal": "extensions",
    "uuid": "extensions",
    "pathlib": "extensions",
    "fractions": "extensions",
    "collections": "extensions",
    "zoneinfo": "extensions",
    "array": "arrays",
    "numpy": "arrays",
    "torch": "arrays",
    "pandas": "pandas_values",
    "polars": "tables",
    "pyarrow": "tables",
}
_MODULE_OF_CODE: Final = {
    **dict.fromkeys(range(1, 16), "extensions"),
    **dict.fromkeys(range(16, 20), "arrays"),
    20: "tables",
    21: "extensions",
    22: "pandas_values",
    24: "extensions",
}
# Classes whose subclasses need no codec of their own, or belong to the library.
_OPEN: Final = frozenset(
    {"numpy.generic", "numpy.MaskedArray", "torch.Tensor", "pandas.ExtensionArray", "pyarrow.Array"}
)
_NAMES: Final = {
    1: "int", 2: "set", 3: "frozenset", 4: "dict", 5: "datetime", 6: "date", 7: "time", 8: "timedelta", 9: "Decimal",
    10: "UUID", 11: "path", 12: "complex", 13: "buffer", 14: "bytearray", 15: "bytes", 16: "numpy value",
    17: "memoryview", 18: "array.array", 19: "torch tensor", 20: "table", 21: "value of the standard library",
    22: "pandas value", 23: "enum or object", 24: "tuple", 25: "value", 32: "object with a codec",
    33: "pickle",
}  # fmt: skip
_encoders: dict[type, Encode] = {}
_custom: dict[type, tuple[str, Callable[[Any], Any]]] = {}
_custom_decoders: dict[str, tuple[type, Callable[[Any], Any]]] = {}


#: Results of a tool in which a keyword is missing, with the advice for each.
_FORGOTTEN: Final = {
    types.CoroutineType: "write `async def`, and await it",
    types.GeneratorType: "to stream its items, `yield from` it; else send a list of them",
    types.AsyncGeneratorType: "to stream its items, write `async def` and yield each; else send a list of them",
}


class Refused(Exception):
    """A value cannot be sent, for the reason in the message. The codec finds the place of the value.

    `path` leads to a part that the codec does not know of, such as a cell of a frame.
    """

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(why)
        self.path = path


class TooDeep(Refused):
    """A value is nested too deeply, and no part of it is at fault."""


class Marked:
    """An enum, or an object with fields, that has come for a hint: `kind` is its class's `__qualname__`.

    For an enum, `member` is the member's name, empty if it has none, and `content` its value. For an object, `member`
    is None and `content` its fields: a dict, or a list.
    """

    __slots__ = ("content", "kind", "member")

    def __init__(self, kind: str, member: str | None, content: Any) -> None:
        self.kind = kind
        self.member = member
        self.content = content


def register_codec(kind: type[T], tag: str, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
    """Register a codec, so that objects of a class, and of its subclasses, can be sent.

    `encode` turns an object into a value that can be sent, `decode` makes the object again from that value. `tag` is
    the name by which the other side knows the codec. Register the codec on both sides: in the program that opens the
    pool, and in the adapter's module. Registering a class again replaces its codec. Raises `UsageError` if the tag
    belongs to another class.
    """
    owner = _custom_decoders.get(tag, (kind,))[0]
    if owner is not kind and owner.__qualname__ != kind.__qualname__:
        raise UsageError(f"the codec {tag!r} is {owner.__qualname__}'s; choose another tag for {kind.__qualname__}")
    _custom[kind] = tag, encode
    _custom_decoders[tag] = kind, decode
    _encoders.clear()


def encoder_of(kind: type) -> Encode:
    """Find the function that prepares values of a type. Raises `Refused` if there is none."""
    encode = _encoders.get(kind)
    if encode is None:
        encode = _encoders[kind] = _find_encoder(kind)
    return encode


def decoder_of(code: int) -> Decode:
    """Find the function that reads an extension. Raises `CodecError` if there is none."""
    if code == _CUSTOM:
        return _decode_custom
    if code == _MARKED:
        return _decode_marked
    module = _MODULE_OF_CODE.get(code)
    if module is None:
        raise CodecError(f"a value of the unknown extension type {code}: the other side is newer")
    decode: Decode = _load(module).DECODERS[code]
    return decode


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of a library in Rust, which is no `Exception`. The operation is impossible."""
    return type(error).__name__ == "PanicException"


def items_of(found: Any) -> list[Any]:
    """The list in an extension's payload. A range, which is as easy to send, could stand for endless work."""
    if type(found) is not list:
        raise TypeError(f"a {type(found).__name__} in place of a list")
    return found


def keys_of(found: Any, kind: type = dict) -> list[Any]:
    """Make keys of the items in an extension's payload, for a dict or a set. Raises `DecodeError` if they take long."""
    keys = [hashable(key) for key in items_of(found)]
    check_hashes(keys, kind)
    return keys


def name_of(code: int) -> str:
    """The name of the values that are in an extension."""
    return _NAMES.get(code, f"extension {code}")


def type_of(value: Any) -> str:
    """The name of a value's type, with its module unless it is builtin."""
    return _type_name(type(value))


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value, each behind the step of a path that leads to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{_clip(key)}]"), item
        yield from ((f" (its key {_clip(key)})", key) for key in value if not isinstance(key, str))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("{...}", item) for item in value)
    elif isinstance(value, enum.Enum):
        yield ".value", value.value
    elif (fields := fields_of(type(value))) is not None:
        for name, attribute in fields:
            with contextlib.suppress(Exception):  # reading an attribute may run code of the class
                yield f".{name}", getattr(value, attribute)


def _clip(key: Any) -> str:
    try:
        text = repr(key)
    except Exception as error:
        return f"<its repr() raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}..."


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def has_codec(kind: type) -> bool:
    """Whether a codec is registered for a class, or for one that it derives from."""
    return bool(_custom) and any(base in _custom for base in kind.__mro__)


def _find_encoder(kind: type) -> Encode:
    if issubclass(kind, enum.Enum):
        return _encode_enum
    for base in kind.__mro__:
        if base in _custom:
            return _custom_encoder(*_custom[base])
        root = base.__module__.partition(".")[0]
        name = f"{root}.{base.__name__}"
        if (module := _MODULE_OF.get(root)) and name in _load(module).ENCODERS:
            if name == "builtins.tuple" and (hasattr(kind, "_fields") or hasattr(kind, "n_sequence_fields")):
                return _encode_named_tuple
            if base is not kind and name not in _OPEN:
                raise Refused(_subclass_text(kind, base))
            encode: Encode = _load(module).ENCODERS[name]
            return encode
    if (fields := fields_of(kind)) is not None:
        return _object_encoder(kind, fields)
    if (remedy := _FORGOTTEN.get(kind)) is not None:
        raise Refused(f"a {kind.__name__} cannot be sent: {remedy}")
    raise Refused(
        f"an object of type {kind.__module__}.{kind.__qualname__} cannot be sent: send plain values, arrays, frames or "
        "dataclasses, or register a codec for it on both sides (register_codec)"
    )


def _subclass_text(kind: type, base: type) -> str:
    name = _type_name(base)
    remedy = "numpy.asarray(value)" if name == "numpy.ndarray" else f"a {name} made from it"
    return (
        f"a {_type_name(kind)} cannot be sent, it would arrive as its base {name}: send {remedy}, or register a codec "
        "for it on both sides (register_codec)"
    )


def _load(module: str) -> Any:
    return importlib.import_module(f"{__package__}.{module}")


def fields_of(kind: type) -> list[tuple[str, str]] | None:
    """List the fields of a class, each as the name that is sent and the attribute; None if it has no fields."""
    if issubclass(kind, msgspec.Struct):
        return list(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    if dataclasses.is_dataclass(kind):
        return [(field.name, field.name) for field in dataclasses.fields(kind)]
    if is_model(kind):
        return [(name, name) for name in kind.model_fields]  # type: ignore[attr-defined]  # a model of pydantic has it
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else [(field.name, field.name) for field in attributes]


def is_model(kind: type) -> bool:
    """Whether a class derives from pydantic's BaseModel, which may not be installed."""
    return hasattr(kind, "__pydantic_root_model__")


def _further_of(model: Any) -> dict[str, Any]:
    """What a pydantic model has beside its fields: extra values, and private attributes."""
    return {**(model.__pydantic_extra__ or {}), **(model.__pydantic_private__ or {})}


def _encode_enum(encoder: Encoder, value: enum.Enum) -> Any:
    return encoder.wrap(_MARKED, (type(value).__qualname__, value.name or "", encoder.prepare(value.value)))


def _encode_named_tuple(encoder: Encoder, value: Any) -> Any:
    return encoder.wrap(_MARKED, (type(value).__qualname__, None, encoder.prepare(list(value))))


def _object_encoder(kind: type, fields: list[tuple[str, str]]) -> Encode:
    config = getattr(kind, "__struct_config__", None)
    tag = {} if config is None or config.tag is None else {config.tag_field: config.tag}
    is_array = config is not None and config.array_like
    further: Callable[[Any], dict[str, Any]] = _further_of if is_model(kind) else lambda _value: {}

    def encode(encoder: Encoder, value: Any) -> Any:
        found = {name: _attribute(value, attribute) for name, attribute in fields}
        found = tag | {name: item for name, item in found.items() if item is not msgspec.UNSET} | further(value)
        content = encoder.prepare(list(found.values()) if is_array else found)
        return encoder.wrap(_MARKED, (kind.__qualname__, None, content))

    return encode


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception as error:
        raise Refused(f"its field {name!r} cannot be read: {type(error).__name__}: {error}") from None


def _decode_marked(decoder: Decoder, payload: memoryview) -> Any:
    kind, member, content = decoder.value(payload)
    return decoder.marked(kind, member, content)


def _custom_encoder(tag: str, convert: Callable[[Any], Any]) -> Encode:
    def encode(encoder: Encoder, value: Any) -> Any:
        try:
            converted = convert(value)
        except Exception as error:
            raise Refused(f"its codec {tag!r} raised {type(error).__name__}: {error}") from error
        return encoder.extension(_CUSTOM, [tag, converted])

    return encode


def _decode_custom(decoder: Decoder, payload: memoryview) -> Any:
    tag, value = decoder.whole(payload)
    if tag not in _custom_decoders:
        raise CodecError(f"there is no codec {tag!r} here: register it on both sides (register_codec)")
    try:
        return _custom_decoders[tag][1](value)
    except Exception as error:
        raise CodecError(f"the codec {tag!r} raised {type(error).__name__}: {error}") from error
