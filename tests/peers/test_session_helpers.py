"""Programs by command: of DSPy, and of adapters that have programs of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from snakepit_trio._pool.programs import execute_program_command
from tests.helpers.dspy_tools import OwnPrograms
from tests.helpers.workers import TOOLS


async def _kill(pool: snakepit.Pool, worker_id: str) -> None:
    worker = pool.workers.get(worker_id)
    assert worker is not None
    assert worker.pid is not None
    restarts = pool.get_stats().restarts
    os.kill(worker.pid, signal.SIGKILL)
    with trio.fail_after(30):
        while pool.get_stats().restarts == restarts:
            await pool._dispatcher.workers_changed.wait()
    await pool.await_ready()


@pytest.mark.skipif(importlib.util.find_spec("dspy") is None, reason="needs the extra: snakepit-trio[dspy]")
@pytest.mark.usefixtures("untraced_workers")
async def test_programs_of_dspy() -> None:
    async with snakepit.open_pool(PythonCalls, workers=2) as pool, pool.session() as session:
        run = partial(execute_program_command, pool, session)
        await pool.python.configure_dspy("dummy", {"answers": {"data": {"output": "out"}}})
        before = time.time()
        made = await run("create_program", {"signature": "input -> output"})
        assert made["kind"] == "predict"
        assert made["signature"] == "input -> output"
        assert before <= made["created_at"] <= time.time()
        program_id = made["program_id"]
        await _kill(pool, made["worker"])
        assert await run("execute_program", {"program_id": program_id, "input": "data"}) == {"output": "out"}
        call = {"program_id": program_id, "inputs": {"input": "data"}}
        assert await execute_program_command(pool, session.id, "execute_program", call) == {"output": "out"}
        assert (await run("get_program", {"program_id": program_id}))["id"] == program_id
        named = {"program_id": "why", "kind": "chain_of_thought", "signature": "input -> output"}
        assert (await run("create_program", named))["signature"] == "input -> reasoning, output"
        assert [found["id"] for found in await run("list_programs")] == [program_id, "why"]
        assert await run("delete_program", {"program_id": "why"}) is None
        assert [found["id"] for found in await run("list_programs")] == [program_id]


async def test_programs_of_an_adapter() -> None:
    """What is kept of a program is enough to build it again in another worker."""
    async with snakepit.open_pool(OwnPrograms, workers=2) as pool, pool.session() as session:
        run = partial(execute_program_command, pool, session)
        made = await run("create_program", {"signature": "a -> b"})
        assert made == {"program_id": "p1", "kind": "own", "signature": "a -> b"}
        known = await run("get_program", {"program_id": "p1"})
        assert known["worker"] in {worker.id for worker in pool.list_workers()}
        assert isinstance(known["created_at"], float)
        expected: dict[str, Any] = {"output": "a -> b: 42", "rebuilt": False, "program": {"runs": 1}}
        call = {"program_id": "p1", "input": 21}
        assert await run("execute_program", call) == expected
        await _kill(pool, known["worker"])
        assert await run("execute_program", call) == expected | {"rebuilt": True, "program": {"runs": 2}}
        assert (await run("get_program", {"program_id": "p1"})) == known | {"runs": 2}
        with pytest.raises(snakepit.InvalidArguments, match="'input' is missing"):
            await run("execute_program", {"program_id": "p1"})
        await run("delete_program", {"program_id": "p1"})
        with pytest.raises(snakepit.ProgramNotFound):
            await run("execute_program", call)


async def test_what_cannot_be() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, pool.session() as session:

        async def fails(error: type[Exception], match: str, command: str, args: Mapping[str, Any]) -> None:
            with pytest.raises(error, match=match):
                await execute_program_command(pool, session, command, args)

        await fails(
            snakepit.UsageError, "'run_program' for programs; there are: create_program, exec", "run_program", {}
        )
        await fails(snakepit.InvalidArguments, "get_program: say which program", "get_program", {})
        await fails(snakepit.ProgramNotFound, "no program 'x'", "get_program", {"program_id": "x"})
        await fails(snakepit.ProgramNotFound, "no program 'x'", "delete_program", {"program_id": "x"})
        args = {"signature": "a -> b"}
        await fails(snakepit.UsageError, "no tool 'dspy_create', which pool.python calls", "create_program", args)
    with pytest.raises(snakepit.SessionNotFound):
        await execute_program_command(pool, session, "list_programs")
