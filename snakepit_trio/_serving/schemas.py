"""What a pool's tools take and return, as JSON Schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import msgspec

from bridge_py.tools.adapter import Tool
from bridge_py.tools.pickling import PLAIN
from bridge_py.tools.schemas import schemas_of
from bridge_py.wire.errors import DecodeError, UsageError
from bridge_py.wire.specs import SCHEMAS, ParameterSpec, ToolSpec
from snakepit_trio._calls.functions import Function
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._requests.tool_registry import ToolRegistry

_DESCRIBE: Final = Function("tool_schemas", SCHEMAS, Any, None, PLAIN)
_TIMEOUT: Final = 60.0  # seconds
_FIRST: Final = 100  # priority: a server that starts is not to wait behind a long queue
_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("int", "integer", "long"), "integer"),
    **dict.fromkeys(("float", "double", "number"), "number"),
    **dict.fromkeys(("str", "string", "text"), "string"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
    **dict.fromkeys(("list", "array", "sequence", "tuple", "set"), "array"),
    **dict.fromkeys(("dict", "object", "map", "mapping"), "object"),
    **dict.fromkeys(("none", "null", "nonetype"), "null"),
}


class ServedPool(Protocol):
    """What is needed of a pool."""

    config: PoolConfig
    tools: ToolRegistry
    _runner: CallRunner


@attrs.frozen
class ToolSchema:
    """A tool as other protocols see it.

    `input` is the JSON Schema (2020-12) of the object of arguments. `output` is the JSON Schema of the result, or of
    one chunk of a `streaming` tool; None if the tool does not say what it returns.
    """

    name: str
    description: str
    streaming: bool
    input: dict[str, Any]
    output: dict[str, Any] | None


async def tool_schemas(pool: ServedPool) -> dict[str, ToolSchema]:
    """Ask a worker for the JSON Schemas of its tools; returns them by name.

    The call takes its place at the front of the queue. Workers that have no type hints (of the wire contract, or of
    stdio) are not asked: their schemas are made of the names of their parameters' types. Of such workers, the tools are
    known that they, or the application by `pool.tools.register_tools`, have told of. Raises what `pool.execute`
    raises; `CallTimeout` after 60 seconds. A cancelled call leaves nothing behind.
    """
    runner = pool._runner
    described: dict[str, _Described] = {}
    if pool.config.adapter.protocol == "link":
        described = _read(await runner.run(_DESCRIBE, {}, _TIMEOUT, None, priority=_FIRST))
    tools = [each.spec for each in pool.tools.list_tools() if each.kind == "worker"]
    return {tool.name: _schema(tool, described.get(tool.name)) for tool in tools}


class _Described(msgspec.Struct):
    """What a worker says of a tool."""

    input: dict[str, Any]
    output: dict[str, Any] | None


def _read(answer: Any) -> dict[str, _Described]:
    try:
        return msgspec.convert(answer, dict[str, _Described])
    except msgspec.ValidationError as error:
        raise DecodeError(f"the worker has described its tools wrongly: {error}") from None


def function_schema(function: Callable[..., Any], name: str | None = None) -> tuple[Tool, ToolSchema]:
    """Describe a function of the application. Returns also the tool that converts its arguments.

    Raises `UsageError` if it cannot be called by the names of its parameters, or if a hint of it cannot be enforced.
    """
    if not callable(function):
        raise UsageError(f"{function!r:.100} is no function: it cannot be served")
    tool = Tool(function, name or str(getattr(function, "__name__", type(function).__name__)))
    return tool, _schema(tool.spec, _Described(**schemas_of(tool)))


def _schema(tool: ToolSpec, described: _Described | None) -> ToolSchema:
    if described is None:
        return ToolSchema(tool.name, tool.description, tool.streaming, _of_names(tool.parameters), None)
    return ToolSchema(tool.name, tool.description, tool.streaming, described.input, described.output)


def _of_names(parameters: Sequence[ParameterSpec]) -> dict[str, Any]:
    """Describe arguments by the names of their types, which are in any language."""
    properties = {each.name: _of_name(each) for each in parameters}
    required = [each.name for each in parameters if each.required]
    found = {"type": "object", "properties": properties}
    return {**found, "required": required} if required else found


def _of_name(parameter: ParameterSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parts = [re.split(r"[\[<(]", part)[0].strip().lower() for part in _members(parameter.type)]
    kinds = [_NAMES[part] for part in parts if part in _NAMES]
    if len(kinds) == len(parts):
        found["type"] = kinds[0] if len(kinds) == 1 else sorted(set(kinds))
    is_clear = "type" in found or parameter.type in ("", "Any")
    text = parameter.description or ("" if is_clear else f"of the type {parameter.type}")
    return {**found, "description": text} if text else found


def _members(name: str) -> list[str]:
    """The members of a union at the top of a type's name."""
    if (inner := re.fullmatch(r"Optional\[(.*)\]", name)) is not None:
        return [*_members(inner.group(1)), "None"]
    found, depth = [""], 0
    for letter in name:
        depth += (letter in "[<(") - (letter in "]>)")
        if letter == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found
