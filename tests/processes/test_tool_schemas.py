"""A pool's tools as JSON Schemas: workers with hints are asked, for the others their parameters speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

import bridge_py
import snakepit_trio as snakepit
from bridge_py.wire.errors import DecodeError
from bridge_py.wire.specs import SCHEMAS, ParameterSpec, ToolSpec
from snakepit_trio import UnknownTool, UsageError, open_pool
from snakepit_trio._serving.schemas import _read, _schema, function_schema, tool_schemas
from snakepit_trio.testing import InMemory

TOOLS = "tests.helpers.tools:Tools"


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_worker_describes_its_tools(in_memory: bool) -> None:
    launcher = {"launcher": InMemory()} if in_memory else {}
    async with open_pool(TOOLS, workers=1, **launcher) as pool:  # type: ignore[arg-type]
        found = await tool_schemas(pool)
        assert found.keys() == {tool["name"] for tool in pool.get_info()["tools"]}
        for tool in found.values():
            jsonschema.Draft202012Validator.check_schema(tool.input)
            jsonschema.Draft202012Validator.check_schema(tool.output or {})
        add = found["add"]
        assert (add.description, add.streaming, add.output) == ("Add.", False, {"type": "integer"})
        assert add.input == {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
            "additionalProperties": False,
            "required": ["a"],
        }
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        with pytest.raises((UnknownTool, UsageError)):
            await pool.execute(SCHEMAS)
        assert pool.get_stats().running == 0


def test_parameters_speak_for_tools_without_hints() -> None:
    names = ["Any", "integer", "Optional[str]", "list[int | str]", "int | None", "map(any)", "Widget"]
    parameters = [ParameterSpec(f"p{at}", name, required=at < 2) for at, name in enumerate(names)]
    found = _schema(ToolSpec("draw", "Draw.", parameters), None)
    jsonschema.Draft202012Validator.check_schema(found.input)
    assert found.input["required"] == ["p0", "p1"]
    kinds = [each.get("type") for each in found.input["properties"].values()]
    assert kinds == [None, "integer", ["null", "string"], "array", ["integer", "null"], "object", None]
    assert found.input["properties"]["p6"] == {"description": "of the type Widget"}
    assert found.output is None


def test_what_is_no_function_has_no_schema() -> None:
    with pytest.raises(UsageError, match="3 is no function"):
        function_schema(3)  # type: ignore[arg-type]


def test_a_worker_that_describes_its_tools_wrongly_is_not_believed() -> None:
    answers: list[Any] = [3, {"a": 1}, {"a": {"input": []}}, {"a": {"input": {}, "output": 3}}]
    for answer in answers:
        with pytest.raises(DecodeError, match="the worker has described its tools wrongly"):
            _read(answer)


async def test_a_foreign_worker_is_not_asked() -> None:
    worker = snakepit.GrpcBridge(script=Path(bridge_py.__file__).with_name("__main__.py"), adapter=TOOLS)
    async with open_pool(worker, workers=1) as pool:
        app = pool.mcp_app()
        async with app.lifespan():
            assert app._tools.schemas == []
            pool.tools.register_tools(None, [ToolSpec("add", "Add.", [ParameterSpec("a", "integer")])])
            await app._tools.load()
            (add,) = app._tools.schemas
            assert add.input["properties"] == {"a": {"type": "integer"}}
            assert await app._tools.call("add", {"a": 1.0}, None) == 2
