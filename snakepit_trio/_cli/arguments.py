"""The arguments of a tool as people write them on a command line: `name=value`, read by the tool's JSON Schema."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from bridge_py.wire.errors import InvalidArguments
from snakepit_trio._serving.json_values import arguments_of, misfit
from snakepit_trio._serving.schemas import ToolSchema

_DEEPEST: Final = 20  # levels of unions and references
_ANY: Final = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
_HOW: Final[Mapping[str, str]] = {
    "integer": "a whole number, such as 5",
    "number": "a number, such as 0.5",
    "boolean": "true or false",
    "null": "null",
    "string": "a text",
    "array": "a list in JSON, such as '[1, 2]'",
    "object": "an object in JSON, such as '{\"key\": 1}'",
}


@attrs.frozen
class Given:
    """One argument as it was given: the text of its value, or a value that was read from a file."""

    name: str
    text: str = ""
    is_read: bool = False
    value: Any = None


def read_pairs(pairs: Sequence[str]) -> list[Given]:
    """Read `name=value`, and `name=@file.json`, whose file has the value as JSON. `@@` stands for a text's own `@`.

    Raises `InvalidArguments`, which names the argument.
    """
    found: dict[str, Given] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not is_unicode(pair):
            raise InvalidArguments(f"{pair!r:.200} is no UTF-8: write other bytes as base64 or as JSON", name)
        if not sign or not name:
            raise InvalidArguments(f"{pair!r:.200} is no argument: write name=value")
        if name in found:
            raise InvalidArguments(f"the argument {name!r:.100} is given twice: write it once", name)
        found[name] = _given(name, text)
    return list(found.values())


def is_unicode(text: str) -> bool:
    """Whether a text of the command line was UTF-8, so that it can be sent."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _given(name: str, text: str) -> Given:
    if text.startswith("@@"):
        return Given(name, text[1:])
    if not text.startswith("@"):
        return Given(name, text)
    path = text[1:]
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = f"for a text that begins with @, write {name}=@@..."
        raise InvalidArguments(f"{name}: the file {path!r:.300} cannot be read: {reason} ({hint})", name) from None
    try:
        return Given(name, is_read=True, value=_decode(content))
    except ValueError as error:
        raise InvalidArguments(f"{name}: the file {path!r:.300} has no JSON: {error}", name) from None


def make_arguments(tool: ToolSchema, given: Sequence[Given]) -> dict[str, Any]:
    """Make the arguments of a tool. Raises `InvalidArguments`, which names the argument and how to write it."""
    properties = tool.input.get("properties", {})
    rest = tool.input.get("additionalProperties", {})
    found = {}
    for each in given:
        if each.name not in properties and rest is False:
            raise _unknown(tool, each.name, properties)
        found[each.name] = _value(tool, each, properties.get(each.name, rest))
    for name in tool.input.get("required", ()):
        if name not in found:
            how = _how(_kinds(properties.get(name, {}), tool.input.get("$defs", {})))
            raise InvalidArguments(f"{tool.name}: {name!r} is missing: write {name}=..., with {how}", name)
    return arguments_of(tool, found)


def _unknown(tool: ToolSchema, name: str, properties: Mapping[str, Any]) -> InvalidArguments:
    near = difflib.get_close_matches(name, properties, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(properties) or 'none'}"
    return InvalidArguments(f"{tool.name}: there is no argument {name!r:.100}; {hint}", name)


def _value(tool: ToolSchema, given: Given, schema: Any) -> Any:
    definitions = tool.input.get("$defs", {})
    whole = {**schema, "$defs": definitions} if isinstance(schema, Mapping) else {}
    kinds = _kinds(whole, definitions)
    if given.is_read:
        why = misfit(given.value, whole)
        if not why:
            return given.value
        raise InvalidArguments(f"{tool.name}: {given.name}=@... does not fit: {why}: give {_how(kinds)}", given.name)
    why = ""
    for value in _readings(given.text, kinds):
        if not (problem := misfit(value, whole)):
            return value
        why = why or problem
    shown = f"{given.name}={given.text:.200} does not fit{why and f': {why}'}"
    how = "one of these" if {"enum", "const"} & whole.keys() else _how(kinds)
    raise InvalidArguments(f"{tool.name}: {shown}: give {how}", given.name)


def _readings(text: str, kinds: frozenset[str]) -> list[Any]:
    """What a text may mean, the likeliest first. For a parameter that takes texts alone, each text is itself."""
    if kinds == {"string"}:
        return [text]
    try:
        found = [_decode(text.encode())]
    except ValueError:
        found = []
    return [*found, text] if "string" in kinds else found


def _decode(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _kinds(schema: Any, definitions: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The types of JSON that a schema takes; all if it does not say."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return _ANY
    if (place := schema.get("$ref")) is not None:
        return _kinds(definitions.get(str(place).removeprefix("#/$defs/")), definitions, depth + 1)
    if (members := schema.get("anyOf")) is not None:
        return frozenset().union(*(_kinds(each, definitions, depth + 1) for each in members))
    if "enum" in schema or "const" in schema:
        return frozenset(_kind_of(each) for each in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind is None:
        return _ANY
    return frozenset([kind] if isinstance(kind, str) else kind)


def _kind_of(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", type(None): "null"}
    return kinds.get(type(value), "object")


def _how(kinds: frozenset[str]) -> str:
    """How values of these kinds are written."""
    if kinds == _ANY:
        return "any JSON, or a text"
    if "number" in kinds:
        kinds -= {"integer"}
    return " or ".join(how for kind, how in _HOW.items() if kind in kinds)
