"""Describes type hints as JSON Schemas (2020-12): which JSON a parameter takes, and which JSON a result becomes.

Two keywords of our own tell a host how to make a value of JSON that no schema can describe: `x-python` names the class,
and `x-dtype` and `x-dimensions` the items of an array. Whoever does not know them ignores them.
"""

from __future__ import annotations

import collections
import enum
import inspect
import itertools
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from bridge_py.wire.registry import is_model

from . import leaves, objects
from .builder import ALIAS, DICTS, ITERABLES, KEPT, LISTS, SETS, WRAPPERS
from .leaves import PYTHON, Schema
from .own import flat_union, shown, substitute, union_of, variables_of

_INTEGERS: Final = r"^(0|-?[1-9][0-9]*)$"
_NUMBERS: Final = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_BOUNDS: Final = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
    "title": "title",
    "description": "description",
    "examples": "examples",
}
_MOST_FLAGS: Final = 6  # whose sums are all listed
_SIZES: Final = {"string": "Length", "array": "Items", "object": "Properties"}


class Schemas:
    """Makes the schemas of hints that share one set of `$defs`.

    With `output` they describe the JSON of results, else the JSON that arguments may be given as. Nothing in here
    raises because of a hint: a hint that JSON Schema cannot describe gives a schema that takes everything, and whose
    description names the hint.
    """

    def __init__(self, *, output: bool) -> None:
        self._output = output
        #: The schemas of classes, by name: the `$defs` of the document that has the other schemas.
        self.definitions: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}

    def of(self, hint: Any) -> Schema:
        """Describe a hint."""
        try:
            return self._of(hint)
        except Exception:  # of a class's own code too, or of a hint that has no hash
            return _unknown(hint)

    def _of(self, hint: Any) -> Schema:
        origin, args = get_origin(hint), get_args(hint)
        if hint is Any or hint is object:
            return {}
        if hint is None:
            return {"type": "null"}
        if origin is Annotated:
            return _annotated(self.of(args[0]), args[1:])
        if origin in WRAPPERS:
            return self.of(args[0])
        if len(members := flat_union(hint)) > 1:
            return _any_of([self.of(member) for member in members])
        if origin is Literal:
            return _one_of(args, shown(hint))
        if isinstance(hint, typing.TypeVar):
            bound = Any if hint.__bound__ is None else hint.__bound__
            return self.of(union_of(hint.__constraints__) if hint.__constraints__ else bound)
        if isinstance(hint, typing.NewType):
            return self.of(hint.__supertype__)
        if ALIAS is not None and isinstance(hint if origin is None else origin, ALIAS):
            name = getattr(hint if origin is None else origin, "__name__", "alias")
            value = hint.__value__ if origin is None else origin.__value__[args]
            return self._defined(hint, name, lambda: self.of(value))
        return self._class(hint, origin or hint, args)

    def _class(self, hint: Any, kind: Any, args: tuple[Any, ...]) -> Schema:
        if kind is getattr(typing, "LiteralString", None):
            return {"type": "string"}
        if not isinstance(kind, type):
            return _unknown(hint)
        if kind is tuple:
            return self._tuple(args)
        if kind is collections.deque or kind in LISTS or (kind in ITERABLES and args):
            return self._list(kind, args)
        if kind in DICTS or kind in KEPT:
            return self._dict(kind, args)
        if issubclass(kind, enum.Enum):
            return _enum(kind, self._output)
        if is_model(kind):
            return self._model(kind)
        if objects.has_fields(kind):
            name = "_".join([kind.__name__, *map(shown, args)])
            return self._defined((kind, args), name, lambda: self._object(kind, args))
        return leaves.schema_of(kind, args, self._output) or _unknown(hint)

    def _tuple(self, args: tuple[Any, ...]) -> Schema:
        if not args:
            return {"type": "array"}
        if len(args) == 2 and args[1] is ...:
            return {"type": "array", "items": self.of(args[0])}
        if args == ((),):
            args = ()
        return _row([self.of(each) for each in args], len(args))

    def _list(self, kind: Any, args: tuple[Any, ...]) -> Schema:
        found: Schema = {"type": "array"}
        if args and args[0] is not Any:
            found["items"] = self.of(args[0])
        return found | {"uniqueItems": True} if kind in SETS else found

    def _dict(self, kind: Any, args: tuple[Any, ...]) -> Schema:
        found: Schema = {"type": "object"}
        values = int if kind is collections.Counter else args[-1] if args else Any
        if values is not Any:
            found["additionalProperties"] = self.of(values)
        if args and (names := _names_of(self.of(args[0]), shown(args[0]))):
            found["propertyNames"] = names
        if kind is collections.defaultdict and not self._output:
            found[PYTHON] = "collections.defaultdict"
        return found

    def _defined(self, key: Any, name: str, make: Callable[[], Schema]) -> Schema:
        if key not in self._names:
            self._names[key] = unique = self._unique(name)
            self.definitions[unique] = {}  # a class may refer to itself
            self.definitions[unique] = make()
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _unique(self, name: str) -> str:
        name = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "part"
        found, count = name, 1
        while found in self.definitions:
            count += 1
            found = f"{name}_{count}"
        return found

    def _object(self, kind: Any, args: tuple[Any, ...]) -> Schema:
        known = variables_of(kind, args)
        fields = [field._replace(hint=substitute(field.hint, known)) for field in objects.fields_of(kind)]
        config = getattr(kind, "__struct_config__", None)
        if issubclass(kind, tuple) or (config is not None and config.array_like):
            found = self._fields_in_a_row(fields, None if config is None else config.tag)
        else:
            found = self.fields(fields)
            if config is not None and config.tag is not None and not self._output:
                found["properties"] = {config.tag_field: {"const": config.tag}} | found["properties"]
                found["required"] = [config.tag_field, *found.get("required", ())]
        text = vars(kind).get("__doc__")  # its own
        if isinstance(text, str) and not text.startswith(f"{kind.__name__}("):
            found["description"] = inspect.cleandoc(text).partition("\n\n")[0]
        return found

    def fields(self, fields: Iterable[objects.Field]) -> Schema:
        """Describe an object of fields."""
        found: Schema = {"type": "object", "properties": {field.name: self.of(field.hint) for field in fields}}
        if required := [field.name for field in fields if field.required]:
            found["required"] = required
        # What comes out may be an object of a subclass, with fields of its own.
        return found if self._output else found | {"additionalProperties": False}

    def _fields_in_a_row(self, fields: list[objects.Field], tag: Any) -> Schema:
        parts = [{"title": field.name} | self.of(field.hint) for field in fields]
        first = [] if tag is None or self._output else [{"const": tag}]
        return _row([*first, *parts], len(first) + sum(field.required for field in fields))

    def _model(self, kind: Any) -> Schema:
        return self._defined((kind, "model"), kind.__name__, lambda: self._of_pydantic(kind))

    def _of_pydantic(self, kind: Any) -> Schema:
        name = self._names[kind, "model"]
        mode = "serialization" if self._output else "validation"
        try:
            found: Schema = kind.model_json_schema(
                mode=mode, by_alias=not self._output, ref_template=f"#/$defs/{name}.{{model}}"
            )
        except Exception:  # pydantic's own: a type has no schema
            return {"type": "object", "description": f"the fields of a `{kind.__qualname__}`"}
        for part, schema in found.pop("$defs", {}).items():
            self.definitions[f"{name}.{part}"] = schema
        return found


def _unknown(hint: Any) -> Schema:
    return {"description": f"a Python value of the type `{shown(hint)}`, which no JSON Schema describes"}


def _any_of(members: list[Schema]) -> Schema:
    if any(member == {} for member in members):
        return {}
    different = [member for at, member in enumerate(members) if member not in members[:at]]
    if {"type": "number"} in different or leaves.NUMBER_OR_NULL in different:
        different = [member for member in different if member != {"type": "integer"}]  # it is a number
    return different[0] if len(different) == 1 else {"anyOf": different}


def _row(parts: list[Schema], least: int) -> Schema:
    found: Schema = {"type": "array", "minItems": least, "maxItems": len(parts)}
    return found | {"prefixItems": parts} if parts else found


def is_json(value: Any) -> bool:
    """Whether a value is JSON as it is."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return value - value == 0  # neither infinite nor NaN
    if type(value) is list:
        return all(map(is_json, value))
    return type(value) is dict and all(type(key) is str for key in value) and all(map(is_json, value.values()))


def _one_of(values: Iterable[Any], name: str) -> Schema:
    """Describe some values, of which an enum's members come as what they are sent as."""
    forms = [objects.sent(each.value) if isinstance(each, enum.Enum) else each for each in values]
    found = [form for form in forms if is_json(form)]
    if not found:
        return {"description": f"a `{name}`, which JSON cannot express"}
    some = {} if len(found) == len(forms) else {"description": f"a `{name}`; JSON cannot express the other values"}
    different = {msgspec.json.encode(each): each for each in found}  # 1 and true are equal in Python
    return {"enum": list(different.values()), **some}


def _enum(kind: type[enum.Enum], output: bool) -> Schema:
    if issubclass(kind, enum.Flag):
        return _flag(kind, output)
    own_way = getattr(kind._missing_, "__func__", None) is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]  # a class method has it
    found = _one_of(kind.__members__.values(), kind.__qualname__)
    if own_way and "enum" in found and not output:  # it may take further values
        return {"description": f"a `{kind.__qualname__}`, such as {found['enum']!r:.500}"}
    return found


def _flag(kind: type[enum.Flag], output: bool) -> Schema:
    names = ", ".join(f"{name} = {member.value}" for name, member in kind.__members__.items())
    found: Schema = {"type": "integer", "description": f"a sum of {names}"}
    single = [member.value for member in kind]
    if output or issubclass(kind, int) or len(single) > _MOST_FLAGS:
        return found
    sums = {sum(some) for size in range(len(single) + 1) for some in itertools.combinations(single, size)}
    return found | {"enum": sorted(sums)}


def _names_of(keys: Schema, name: str) -> Schema:
    """Describe the keys of an object, which are texts in JSON."""
    kind = keys.get("type")
    if kind == "integer":
        return {"pattern": _INTEGERS, PYTHON: "int"}
    if kind == "number" or kind == ["number", "null"]:
        return {"pattern": _NUMBERS, PYTHON: keys.get(PYTHON, "float")}
    if "enum" in keys:
        texts = [each for each in keys["enum"] if type(each) is str]
        numbers = [str(each) for each in keys["enum"] if type(each) is int]
        return {"enum": texts} if texts or not numbers else {"enum": numbers, PYTHON: "int"}
    if kind == "string" or (type(kind) is list and "string" in kind):
        return {key: value for key, value in keys.items() if key != "type"}
    return {} if keys == {} or "anyOf" in keys else {"description": f"a `{name}`, which no key in JSON can be"}


def _annotated(found: Schema, metadata: Iterable[Any]) -> Schema:
    for meta in metadata:
        if isinstance(meta, msgspec.Meta):
            found = _constrained(found, meta)
        else:
            text = getattr(meta, "description", None) or getattr(meta, "documentation", None)
            if isinstance(text, str):
                found = found | {"description": text}
    return found


def _constrained(found: Schema, meta: msgspec.Meta) -> Schema:
    made = dict(found)
    for name, keyword in _BOUNDS.items():
        if (value := getattr(meta, name)) is not None:
            made[keyword] = value
    for bound in ("min", "max"):
        size = getattr(meta, f"{bound}_length")
        if size is not None and "contentEncoding" not in found:  # the text of bytes is longer than they are
            kinds = [found["type"]] if found.get("type") in _SIZES else _SIZES
            made |= {f"{bound}{_SIZES[kind]}": size for kind in kinds}
    if meta.tz is not None and found.get("type") == "string":
        made["format"] = "date-time" if meta.tz else "date-time without an offset"
    return made | _plain(meta.extra_json_schema)


def _plain(extra: Mapping[str, Any] | None) -> Schema:
    return dict(extra) if extra and is_json(dict(extra)) else {}
