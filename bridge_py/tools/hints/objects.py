"""Translates hints of enums, classes with fields, containers that MessagePack does not know, and numpy's types."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple, get_args, get_origin

import msgspec

from bridge_py.wire import codec
from bridge_py.wire.keys import check_hashes
from bridge_py.wire.registry import Marked, is_model

from . import models
from .own import (
    Unenforceable,
    check_known,
    convert,
    name_of,
    of_kind,
    of_parts,
    optional,
    own,
    plain,
    same,
    scalar,
    shown,
    substitute,
    type_of,
    variables_of,
)

Of = Callable[[Any], Any]  # translates a hint to terms of msgspec
MISSING: Final = object()


# Enums.


@functools.lru_cache(10_000)
def enum_of(kind: type[enum.Enum]) -> Any:
    """Make the class that stands for an enum. A member may come as its name, or as its value."""
    forms = [(form, member) for member in kind.__members__.values() if (form := sent(member.value)) is not MISSING]

    def find(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if isinstance(value, Marked):
            if value.member is None or value.kind != kind.__qualname__:
                raise ValueError(f"Expected `{kind.__qualname__}`, got `{value.kind}`")
            if value.member in kind.__members__:
                return kind[value.member]
        given = scalar(value)
        for form, member in forms:
            if same(form, given):
                return member
        return _made(kind, given)

    return own(kind.__qualname__, find)


def sent(value: Any) -> Any:
    """Return a member's value as it arrives after sending; `MISSING` if it cannot be sent."""
    try:
        encoded = codec.encode(value)
        return codec.decode(encoded.body, b"".join(encoded.buffers))
    except Exception:
        return MISSING


def _made(kind: type[enum.Enum], value: Any) -> Any:
    is_flag = issubclass(kind, enum.Flag) and type(value) is int
    usual: Any = enum.Enum._missing_  # a classmethod
    if is_flag or getattr(kind._missing_, "__func__", None) is not usual.__func__:
        try:
            found = kind(value)
        except Exception:
            found = None
        if isinstance(found, kind) and (not is_flag or found.value == value):
            return found
    raise ValueError(f"Invalid enum value {value!r:.100}")


def fits(find: Callable[[Any], Any], value: Any, member: Any) -> bool:
    """Whether `find` takes a value for that member of an enum."""
    try:
        return find(value) is member
    except ValueError:
        return False


# Classes with fields.


class Field(NamedTuple):
    """A field of a class."""

    name: str  # the name under which it is sent
    attribute: str
    argument: str | None  # the class's parameter for it; None if there is none
    hint: Any
    required: bool


def has_fields(kind: type) -> bool:
    """Whether objects of a class are sent as their fields."""
    return (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
        or issubclass(kind, msgspec.Struct)
        or is_model(kind)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def converter_of(kind: Any, args: tuple[Any, ...], of: Of) -> Callable[[Any], Any]:
    """Make the function that makes objects of a class from their fields. Raises `Unenforceable`."""
    if is_model(kind):
        return models.converter_of(kind, of, _of_subclass)
    known = variables_of(kind, args)
    fields = [field._replace(hint=of(substitute(field.hint, known))) for field in fields_of(kind)]
    for field in fields:
        check_known(field.hint, field.hint)
    config = getattr(kind, "__struct_config__", None)
    if issubclass(kind, tuple) or (config is not None and config.array_like):
        read = _reader_of_list(fields, config)
    else:
        read = _reader_of_dict(kind, fields, config)

    def make(value: Any) -> Any:
        if not typing.is_typeddict(kind) and isinstance(value, kind):
            return value
        if not isinstance(value, Marked):
            return _build(kind, fields, read(value), exact=False)
        if typing.is_typeddict(kind):
            return read(value.content)
        if value.member is not None or value.kind != kind.__qualname__:
            return _of_subclass(kind, value, of)
        return _build(kind, fields, read(value.content), exact=True)

    return make


def _of_subclass(kind: type, value: Marked, of: Of) -> Any:
    """Make an object of a subclass, if that subclass is known here. Raises `ValueError`."""
    waiting: list[Any] = list(kind.__subclasses__())
    while waiting:
        found = waiting.pop()
        if found.__qualname__ == value.kind:
            return convert(value, of(found))
        waiting += found.__subclasses__()
    raise ValueError(f"Expected `{kind.__qualname__}`, got `{value.kind}`")


def fields_of(kind: Any) -> list[Field]:
    """List the fields of a class. Raises `Unenforceable`."""
    if is_model(kind):
        fields = kind.model_fields.items()
        return [Field(name, name, each.alias or name, each.annotation, each.is_required()) for name, each in fields]
    try:
        # If annotations are strings, Python 3.12 does not find a class's own type parameters.
        own_names = {each.__name__: each for each in getattr(kind, "__type_params__", ())}
        names = {**vars(kind), **own_names} if own_names else None
        hints = typing.get_type_hints(kind, localns=names, include_extras=True)
    except Exception as error:
        raise Unenforceable(f"the hints of {name_of(kind)} cannot be resolved: {error}") from None
    if typing.is_typeddict(kind):
        return [Field(name, name, name, hint, _is_required(kind, name, hint)) for name, hint in hints.items()]
    if issubclass(kind, tuple):
        named: Any = kind
        return [
            Field(name, name, name, hints.get(name, Any), name not in named._field_defaults) for name in named._fields
        ]
    if issubclass(kind, msgspec.Struct):
        return [Field(each.encode_name, each.name, each.name, hints[each.name], each.required)
                for each in msgspec.structs.fields(kind)]  # fmt: skip
    if dataclasses.is_dataclass(kind):
        return _dataclass_fields(kind, hints)
    import attrs

    return [Field(each.name, each.name, each.alias if each.init else None, hints.get(each.name, Any),
                   each.init and each.default is attrs.NOTHING) for each in attrs.fields(kind)]  # fmt: skip


def _is_required(kind: Any, name: str, hint: Any) -> bool:
    # Where annotations are strings, Python itself does not see these marks.
    if (mark := get_origin(hint)) in (typing.Required, typing.NotRequired):
        return mark is typing.Required
    return name in kind.__required_keys__


def _dataclass_fields(kind: Any, hints: dict[str, Any]) -> list[Field]:
    for name, field in kind.__dataclass_fields__.items():
        # There is no public way to find an `InitVar` among the fields.
        if field._field_type is dataclasses._FIELD_INITVAR and field.default is dataclasses.MISSING:  # type: ignore[attr-defined]
            raise Unenforceable(
                f"{name_of(kind)} takes {name!r}, an InitVar, which no object of it has: give it a default"
            )
    return [Field(each.name, each.name, each.name if each.init else None, hints[each.name],
                   each.init and each.default is each.default_factory is dataclasses.MISSING)
            for each in dataclasses.fields(kind)]  # fmt: skip


def _reader_of_dict(kind: Any, fields: list[Field], config: Any) -> Callable[[Any], dict[str, Any]]:
    tag = None if config is None or config.tag is None else (config.tag_field, config.tag)
    names = {f"f{index}": field.name for index, field in enumerate(fields)}
    shape = msgspec.defstruct(
        getattr(kind, "__name__", "fields"),
        [
            (short, field.hint) if field.required else (short, optional(field.hint), msgspec.UNSET)
            for short, field in zip(names, fields, strict=True)
        ],
        rename=names,
        kw_only=True,
        forbid_unknown_fields=True,
    )  # fmt: skip

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"Expected `{kind.__qualname__}`, got `{type_of(value)}`")
        if tag is not None:
            if not same(value.get(tag[0]), tag[1]):
                raise ValueError(f"Invalid value {value.get(tag[0])!r:.100} - at `$.{tag[0]}`")
            value = {name: item for name, item in value.items() if name != tag[0]}
        found = convert(value, shape)
        given = ((field, getattr(found, short)) for short, field in zip(names, fields, strict=True))
        return {field.attribute: item for field, item in given if item is not msgspec.UNSET}

    return read


def _reader_of_list(fields: list[Field], config: Any) -> Callable[[Any], dict[str, Any]]:
    tag = None if config is None else config.tag
    least = sum(field.required for field in fields)

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"Expected `array`, got `{type_of(value)}`")
        if tag is not None:
            if not value or not same(value[0], tag):
                raise ValueError(f"Invalid value {value[:1]!r:.100} - at `$[0]`")
            value = value[1:]
        if not least <= len(value) <= len(fields):
            size = f"{least}" if least == len(fields) else f"{least} to {len(fields)}"
            raise ValueError(f"Expected `array` of length {size}, got {len(value)}")
        given = fields[: len(value)]
        found = convert(value, of_parts(tuple, [field.hint for field in given])) if given else ()
        return {field.attribute: item for field, item in zip(given, found, strict=True)}

    return read


def _build(kind: Any, fields: list[Field], values: dict[str, Any], *, exact: bool) -> Any:
    """Make an object from its attributes. With `exact` it gets these attributes, whatever its class makes of them."""
    if typing.is_typeddict(kind):
        return values
    given = {
        field.argument: values[field.attribute] for field in fields if field.attribute in values and field.argument
    }
    try:
        made = kind(**given)
    except Exception as error:
        if not exact or issubclass(kind, tuple):
            raise ValueError(f"{kind.__qualname__} cannot be made: {type(error).__name__}: {error}") from None
        made = kind.__new__(kind)  # its own __init__ takes other arguments, or does not take the converted ones again
    if exact or len(given) < len(values):
        _restore(made, fields, values, exact)
    return made


def _restore(made: Any, fields: list[Field], values: dict[str, Any], exact: bool) -> None:
    if isinstance(made, tuple):
        return
    write = msgspec.structs.force_setattr if isinstance(made, msgspec.Struct) else object.__setattr__
    for field in fields:
        if field.attribute in values and (exact or field.argument is None):
            value = values[field.attribute]
            if getattr(made, field.attribute, MISSING) is not value:
                write(made, field.attribute, value)


# Containers and numpy.


def dict_of(key_hint: Any, value_hint: Any) -> Any:
    """Make a hint of a dict whose keys are of a class of ours: msgspec itself would take any text for such keys."""

    def make(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"Expected `object`, got `{type_of(value)}`")
        keys = [_key_of(key, key_hint) for key in value]
        values = convert(dict(enumerate(value.values())), of_parts(dict, [int, value_hint]))
        check_hashes(keys)
        found = dict(zip(keys, values.values(), strict=True))
        if len(found) < len(value):
            raise ValueError("Two of its keys are equal")
        return found

    return own("dict", make)


def _key_of(key: Any, hint: Any) -> Any:
    try:
        return convert(key, hint)
    except ValueError as error:
        raise ValueError(f"{error} (its key {plain(key)!r:.60})") from None


def kept(kind: Any, parts: list[Any]) -> Any:
    """Make a hint of a container of the standard library. The value keeps its class."""
    is_deque = kind is collections.deque
    inner = (
        of_parts(list, parts[:1]) if is_deque else dict_of(parts[0], int if kind is collections.Counter else parts[-1])
    )

    def make(value: Any) -> Any:
        if not isinstance(value, kind):
            if kind is collections.defaultdict or type(value) is not (list if is_deque else dict):
                raise ValueError(f"Expected `{kind.__qualname__}`, got `{type_of(value)}`")
            return kind(convert(value, inner))
        found = convert(list(value) if is_deque else dict(value), inner)
        return collections.deque(found, value.maxlen) if is_deque else of_kind(value, found)

    return own(kind.__qualname__, make)


def array_of(hint: Any, args: tuple[Any, ...]) -> Any:
    """Make a hint of a numpy array with the dtype, and the number of dimensions, that the hint names."""
    import numpy as np

    shape = get_args(args[0]) if get_origin(args[0]) is tuple else ()
    dimensions = None if not shape or ... in shape else len(shape)
    of: Any = get_args(args[1])[0] if len(args) > 1 and get_args(args[1]) else Any
    kind = of if isinstance(of, type) and issubclass(of, np.generic) else None
    if kind is None and of is not Any:
        raise Unenforceable(f"`{shown(hint)}`: write a scalar class of numpy's, such as numpy.float64, for its dtype")

    def check(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"Expected `numpy.ndarray`, got `{type_of(value)}`")
        if kind is not None and not issubclass(value.dtype.type, kind):
            raise TypeError(f"Expected an array of `{kind.__name__}`, got one of dtype `{value.dtype}`")
        if dimensions is not None and value.ndim != dimensions:
            raise TypeError(f"Expected an array of {dimensions} dimensions, got one of {value.ndim}")
        return value

    return own("numpy.ndarray", check)


def numpy_scalar_of(kind: Any) -> Any:
    """Make a hint of a scalar of numpy's. It also takes a Python number of exactly the same value."""
    import numpy as np

    exact = {bool: np.bool_, int: np.number, float: np.inexact, complex: np.complexfloating}

    def make(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if issubclass(kind, exact.get(type(value), ())):
            with contextlib.suppress(Exception):
                made = kind(value)
                if isinstance(made, kind) and (made.item() == value or value != value):
                    return made
        raise TypeError(f"Expected `{name_of(kind)}`, got `{type_of(value)}`{_what(value)}")

    return own(kind.__qualname__, make)


def _what(value: Any) -> str:
    return f" {value!r:.60}" if type(value) in (int, float, complex) else ""
