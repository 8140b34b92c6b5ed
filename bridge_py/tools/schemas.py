"""JSON Schemas of tools. A worker makes them when its host asks: starts of workers do not pay for them."""

from __future__ import annotations

import contextlib
import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, get_args

import msgspec

from bridge_py.wire.specs import SCHEMAS

from .adapter import Tool
from .hints import hint_of_chunks, hints_of, objects
from .hints.schemas import Schemas, is_json

_MISSING: Final = object()
Schema = dict[str, Any]


class ToolSchemas(TypedDict):
    """The JSON Schemas of a tool: of the object of its arguments, and of its result, or of a chunk of it.

    `output` is None if the tool's function does not say what it returns.
    """

    input: Schema
    output: Schema | None


def describer(tools: Mapping[str, Tool]) -> Tool:
    """Make the tool that describes others, with which a worker answers its host."""

    def describe() -> dict[str, ToolSchemas]:
        return {name: schemas_of(tool) for name, tool in tools.items()}

    return Tool(describe, SCHEMAS)


def schemas_of(tool: Tool) -> ToolSchemas:
    """Describe a tool. No hint makes this raise."""
    function = tool.function if tool.together is None else tool.together.function  # of a batch tool: the user's own
    hints = hints_of(function)
    return {"input": _input(tool, function, hints), "output": _output(tool, hints)}


def _output(tool: Tool, hints: Mapping[str, Any]) -> Schema | None:
    if "return" not in hints:
        return None
    schemas = Schemas(output=True)
    return _document(schemas.of(_result_hint(tool, hints["return"])), schemas)


def _result_hint(tool: Tool, hint: Any) -> Any:
    """The hint of what one caller gets: a result, a chunk of a stream, or an item of what a batch tool returns."""
    if tool.streaming:
        return hint_of_chunks(hint)
    if tool.together is None:
        return hint
    return next(iter(get_args(hint)), Any)


def _input(tool: Tool, function: Callable[..., Any], hints: Mapping[str, Any]) -> Schema:
    schemas = Schemas(output=False)
    parameters = inspect.signature(function).parameters
    properties: dict[str, Schema] = {}
    for spec in tool.spec.parameters:
        found = schemas.of(tool.hints[spec.name])
        if spec.description:
            found = {**found, "description": _described(spec.description, found)}
        if not spec.required and (default := _json_of(parameters[spec.name].default)) is not _MISSING:
            found = {**found, "default": default}
        properties[spec.name] = found
    made: Schema = {"type": "object", "properties": properties}
    required = [spec.name for spec in tool.spec.parameters if spec.required]
    rest = [each.name for each in parameters.values() if each.kind is each.VAR_KEYWORD]
    made["additionalProperties"] = False
    if rest:
        required += _add_rest(made, hints.get(rest[0], Any), schemas)
    return _document(made | ({"required": required} if required else {}), schemas)


def _described(description: str, found: Schema) -> str:
    own = found.get("description")
    return f"{description} ({own})" if own else description


def _add_rest(made: Schema, hint: Any, schemas: Schemas) -> list[str]:
    """Describe the arguments that have no parameter of their own. Returns which of them are required."""
    if typing.get_origin(hint) is not typing.Unpack:
        made["additionalProperties"] = schemas.of(hint)
        return []
    found = schemas.fields(objects.fields_of(get_args(hint)[0]))
    made["properties"] |= found["properties"]
    return list(found.get("required", ()))


def _document(found: Schema, schemas: Schemas) -> Schema:
    return {**found, "$defs": schemas.definitions} if schemas.definitions else found


def _json_of(value: Any) -> Any:
    with contextlib.suppress(Exception):  # of a class's own code too
        found = objects.sent(value.value) if isinstance(value, enum.Enum) else msgspec.to_builtins(value)
        if is_json(found):
            return found
    return _MISSING
