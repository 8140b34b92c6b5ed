"""DSPy's programs of thought: code that a language model has written, and what becomes of it."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from snakepit_trio import ToolError, UsageError
from tests.helpers.workers import is_alive

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("dspy") is None, reason="needs the extra: snakepit-trio[dspy]"),
    pytest.mark.usefixtures("untraced_workers"),
]
QA: dict[str, Any] = {"signature": "question -> answer"}


@asynccontextmanager
async def _pool(**config: Any) -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(PythonCalls, workers=1, options={"trusted": True}, **config) as pool:
        yield pool


@pytest.mark.skipif(importlib.util.find_spec("deno") is not None, reason="the package deno is found before ours")
async def test_programs_of_thought_need_deno(tmp_path: Path) -> None:
    """It is looked for when the program is made; DSPy looks at its version when it runs code."""
    async with _pool(env={"PATH": str(tmp_path)}) as pool, pool.session() as session:
        python = pool.python
        with pytest.raises(UsageError, match=r"in Deno, which is missing: pip install 'dspy\[deno\]'"):
            await python.create_dspy_program("program_of_thought", QA, store_as="pot", session=session)
        deno = tmp_path / "deno"
        deno.write_text("#!/bin/sh\necho deno 0.1.0\n")
        deno.chmod(0o755)
        params = {**QA, "max_iters": 1}
        entry = await python.create_dspy_program("program_of_thought", params, store_as="pot", session=session)
        assert (entry["inputs"], entry["outputs"]) == (["question"], ["answer"])
        code = {"reasoning": "compute", "generated_code": "```python\nprint(42)\n```"}
        await python.configure_dspy("dummy", {"answers": [code] * 5}, session=session)
        with pytest.raises(ToolError, match=r"Unsupported Deno version 0\.1\.0"):
            await python.execute_dspy("pot", {"question": "?"}, session=session)


async def test_a_program_of_thought_runs_what_the_model_has_written() -> None:
    """In a process of its own, whose result the model is given."""
    code = "```python\nproduct = 45 * 123\nSUBMIT({'product': product})\n```"
    answers = {
        '{"product": 5535}': {"reasoning": "it was computed", "answer": "5535"},
        "ZeroDivisionError": {"reasoning": "another way", "generated_code": code},
        "45 by 123": {"reasoning": "by code", "generated_code": "```python\nprint(1 / 0)\n```"},
    }
    async with _pool() as pool, pool.session() as session:
        python = pool.python
        with pytest.raises(UsageError, match="there is no interpreter 'here'; there are: deno, local"):
            params = {**QA, "interpreter": "here"}
            await python.create_dspy_program("program_of_thought", params, store_as="pot", session=session)
        await python.configure_dspy("dummy", {"answers": answers}, session=session)
        params = {**QA, "interpreter": "local", "max_iters": 2}
        await python.create_dspy_program("program_of_thought", params, store_as="pot", session=session)
        outputs = await python.execute_dspy("pot", {"question": "45 by 123?"}, session=session)
        assert outputs == {"reasoning": "it was computed", "answer": "5535"}


@pytest.mark.parametrize(("concurrency", "grace", "most_restarts"), [(1, 20.0, 0), (2, 0.3, 1)])
async def test_what_the_model_has_written_ends_with_its_call(
    tmp_path: Path, concurrency: int, grace: float, most_restarts: int
) -> None:
    """Also where a thread waits for it, which costs the worker, unless the call is cancelled before it waits."""
    log = tmp_path / "log"
    code = f"import os\nwith open({str(log)!r}, 'w') as file:\n    print(os.getpid(), file=file)\nwhile True: pass"
    answers = {"?": {"reasoning": "", "generated_code": f"```python\n{code}\n```"}}
    async with _pool(concurrency=concurrency, cancel_grace=grace) as pool, pool.session() as session:
        await pool.python.configure_dspy("dummy", {"answers": answers}, session=session)
        params = {**QA, "interpreter": "local"}
        await pool.python.create_dspy_program("program_of_thought", params, store_as="pot", session=session)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pool.python.execute_dspy, "pot", {"question": "?"}, session=session))
                while not log.exists() or not log.read_text():
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert not is_alive(int(log.read_text()))
        await pool.await_ready()
        assert pool.get_stats().restarts <= most_restarts
