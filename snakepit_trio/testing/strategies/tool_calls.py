"""Tools, calls of an adapter's tools, and calls with one thing wrong."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple, get_args

from hypothesis import strategies as st

from bridge_py.tools.adapter import BaseAdapter, Tool, unknown_tool
from bridge_py.wire.errors import UsageError
from bridge_py.wire.specs import Cancel, ParameterSpec, ToolSpec

from .hints import fitting, not_fitting

Adapted = type[BaseAdapter] | BaseAdapter


class Call(NamedTuple):
    """The first two arguments of `Pool.execute` and `Pool.stream`."""

    name: str
    arguments: dict[str, Any]


def tool_specs() -> st.SearchStrategy[ToolSpec]:
    """Descriptions that a worker may give of one of its tools."""
    return st.builds(
        ToolSpec,
        name=_names(),
        description=st.text(max_size=40),
        parameters=st.lists(_parameters(), max_size=4, unique_by=lambda parameter: parameter.name),
        streaming=st.booleans(),
        cancel=st.sampled_from(get_args(Cancel)),
        idempotent=st.booleans(),
        timeout=st.none() | st.floats(0, math.inf, exclude_min=True),
    )


def calls(adapter: Adapted, *, tools: Collection[str] | None = None) -> st.SearchStrategy[Call]:
    """Calls that an adapter takes, of all its tools or of some. The arguments are drawn from their type hints.

    An adapter's class is not initialized: give an instance if its `tools` needs that. If Hypothesis cannot make values
    for a hint, it asks you to register a strategy: `hypothesis.strategies.register_type_strategy`. Raises `UsageError`
    for an adapter without tools, and `UnknownTool`.
    """
    return st.one_of([_fitting(tool) for tool in _tools_of(adapter, tools)])


def wrong_calls(adapter: Adapted, *, tools: Collection[str] | None = None) -> st.SearchStrategy[Call]:
    """Calls with one thing wrong: an argument that is missing, of a wrong type, or unknown.

    Each call raises `InvalidArguments`. This function raises `UsageError` if none of the tools refuses anything.
    """
    found = [wrong for tool in _tools_of(adapter, tools) for wrong in _wrong(tool)]
    if not found:
        raise UsageError(f"{_name_of(adapter)}: its tools take whatever they are given; there is no wrong call")
    return st.one_of(found)


def tools_of(adapter: Adapted) -> dict[str, Tool]:
    """The tools of an adapter, by name. Raises `UsageError` if it is no adapter, or has no tools."""
    kind = adapter if isinstance(adapter, type) else type(adapter)
    if not issubclass(kind, BaseAdapter):
        raise UsageError(f"adapter {adapter!r}: give a class that derives from bridge_py.BaseAdapter, or an instance")
    # The class is not initialized, because that may load a model.
    instance = kind.__new__(kind) if isinstance(adapter, type) else adapter
    tools = instance.tools()
    if not tools:
        raise UsageError(f"{_name_of(adapter)} has no tools: mark its methods with bridge_py.tool")
    return tools


def _tools_of(adapter: Adapted, names: Collection[str] | None) -> list[Tool]:
    tools = tools_of(adapter)
    for name in names or ():
        if name not in tools:
            raise unknown_tool(name, tools)
    return [tool for name, tool in tools.items() if names is None or name in names]


def _name_of(adapter: Adapted) -> str:
    kind = adapter if isinstance(adapter, type) else type(adapter)
    return kind.__qualname__


def _fitting(tool: Tool) -> st.SearchStrategy[Call]:
    made = {parameter.name: fitting(tool.hints[parameter.name]) for parameter in tool.spec.parameters}
    optional = {
        parameter.name: made.pop(parameter.name) for parameter in tool.spec.parameters if not parameter.required
    }
    return st.fixed_dictionaries(made, optional=optional).map(lambda arguments: Call(tool.name, arguments))


def _wrong(tool: Tool) -> list[st.SearchStrategy[Call]]:
    good = _fitting(tool)
    found = [good.map(_without(parameter.name)) for parameter in tool.spec.parameters if parameter.required]
    for name, hint in tool.hints.items():
        if others := not_fitting(hint):
            found.append(st.builds(_with, good, st.just(name), st.sampled_from(others)))
    if not tool.takes_any:
        unknown = _names().filter(lambda name: name not in tool.hints)
        found.append(st.builds(_with, good, unknown, st.integers()))
    return found


def _without(parameter: str) -> Any:
    return lambda call: Call(call.name, {name: item for name, item in call.arguments.items() if name != parameter})


def _with(call: Call, parameter: str, item: Any) -> Call:
    return Call(call.name, {**call.arguments, parameter: item})


def _names() -> st.SearchStrategy[str]:
    return st.from_regex(r"[a-z][a-z0-9_]{0,11}", fullmatch=True)


@st.composite
def _parameters(draw: st.DrawFn) -> ParameterSpec:
    kind, default = draw(st.sampled_from([("int", "0"), ("str", "''"), ("list[float]", "()"), ("Any", "None")]))
    required = draw(st.booleans())
    text = draw(st.text(max_size=20))
    return ParameterSpec(draw(_names()), kind, text, required, default="" if required else default)
