"""`breakpoint()` in workers without a debugger."""

from __future__ import annotations

import pytest

import snakepit_trio as snakepit
from tests.helpers import breakpoint_tools
from tests.helpers.breakpoint_tools import Tools


@pytest.mark.parametrize("tool", ["stop", "stop_async"])
async def test_the_error_names_the_remedy(tool: str) -> None:
    async with snakepit.open_pool(Tools, workers=1) as pool:
        pid = await pool.execute("pid")
        with pytest.raises(snakepit.ToolError, match=r"UsageError: breakpoint\(\) finds no .*debug=True") as caught:
            await pool.execute(tool)
        assert f"in {tool}\n" in caught.value.remote_traceback
        assert await pool.execute("pid") == pid


async def test_a_function() -> None:
    async with snakepit.open_pool(Tools, workers=1) as pool:
        with pytest.raises(snakepit.ToolError, match=r"UsageError: .*debug=True"):
            await pool.run(breakpoint_tools.stop_and_add, 1, 2)


@pytest.mark.parametrize(
    ("choice", "result"), [("0", 2), ("tests.helpers.breakpoint_tools.hook", "hook()"), ("no.such.thing", 2)]
)
@pytest.mark.parametrize("template", [False, True])
async def test_the_variable_chooses(choice: str, result: object, template: bool) -> None:
    async with snakepit.open_pool(Tools, workers=1, env={"PYTHONBREAKPOINT": choice}, template=template) as pool:
        assert await pool.execute("stop") == result


async def test_a_debugger_of_ones_own_gets_the_arguments() -> None:
    env = {"PYTHONBREAKPOINT": "tests.helpers.breakpoint_tools.hook"}
    async with snakepit.open_pool(Tools, workers=1, env=env) as pool:
        assert await pool.execute("stop_with", {"first": "a"}) == "hook('a',)"
