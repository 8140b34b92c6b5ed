"""What programs of DSPy say while they run, and how they are stopped: real workers, and a server of our own."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from tests.helpers.openai_server import Server

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("dspy") is None, reason="needs the extra: snakepit-trio[dspy]"),
    pytest.mark.usefixtures("untraced_workers"),
]
TRUSTED: dict[str, Any] = {"trusted": True}
SKY = {"answers": {"the sky": {"reasoning": "it is day", "answer": "blue"}}}
QA = {"signature": "question -> answer"}
ONE_STEP = """
class OneStep(dspy.Module):
    def __init__(self):
        super().__init__()
        self.say = dspy.ChainOfThought("question -> answer")

    def forward(self, question):
        return self.say(question=question)
"""


@asynccontextmanager
async def _pool(**config: Any) -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(PythonCalls, workers=1, **config) as pool:
        yield pool


async def _wait(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 120)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["litellm", "auto"])
async def test_tokens_come_as_they_are_said(server: Server, engine: str) -> None:
    """By LiteLLM, and by what DSPy itself chooses."""
    async with _pool(options=TRUSTED) as pool, pool.session() as session:
        python = pool.python
        await python.configure_dspy("openai", {**server.config, "engine": engine}, session=session)
        await python.create_dspy_program("chain_of_thought", QA, store_as="cot", session=session)
        await python.create_dspy_program("module", {"class_definition": ONE_STEP}, store_as="own", session=session)
        expected = {"reasoning": "because it is so", "answer": "forty-two"}
        assert await python.execute_dspy("cot", {"question": "?"}, session=session) == expected
        for program, predictor in (("cot", "predict"), ("own", "say.predict")):
            server.go_on.clear()
            async with python.stream_dspy(program, {"question": "?"}, session=session) as chunks:
                first = await anext(chunks)
                assert first == {"field": "reasoning", "piece": "because", "predictor": predictor}
                server.go_on.set()  # the rest is said only now
                *pieces, last = [first, *[chunk async for chunk in chunks]]
            assert last == {"prediction": expected}
            assert len(pieces) > len(expected)
            for field, text in expected.items():
                assert "".join(piece["piece"] for piece in pieces if piece["field"] == field).strip() == text
        assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
        assert {request["key"] for request in server.requests} == {server.config["api_key"]}


async def test_a_model_that_does_not_stream_gives_a_piece_for_each_field() -> None:
    async with _pool() as pool, pool.session() as session:
        python = pool.python
        await python.configure_dspy("dummy", SKY, session=session)
        await python.create_dspy_program("chain_of_thought", QA, store_as="cot", session=session)
        async with python.stream_dspy("cot", {"question": "the sky?"}, session=session) as chunks:
            assert [chunk async for chunk in chunks] == [
                {"field": "reasoning", "piece": "it is day", "predictor": ""},
                {"field": "answer", "piece": "blue", "predictor": ""},
                {"prediction": {"reasoning": "it is day", "answer": "blue"}},
            ]


@pytest.mark.parametrize(("engine", "concurrency"), [("litellm", 2), ("auto", 1), ("auto", 2)])
async def test_cancelling_hangs_up(server: Server, engine: str, concurrency: int) -> None:
    """The worker lives on, and the programs with it."""
    async with (
        _pool(concurrency=concurrency, options={"allow": ["default", "dspy:LM"]}) as pool,
        pool.session() as session,
    ):
        python = pool.python
        await python.configure_dspy("openai", {**server.config, "engine": engine}, session=session)
        await python.create_dspy_program(
            "predict", {"signature": "question -> reasoning, answer"}, store_as="qa", session=session
        )
        for is_stream in (False, True):
            server.mode = "block"
            server.arrived.clear()
            server.hung_up.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run if not is_stream else _drain, python, "qa", session)
                await _wait(server.arrived)
                nursery.cancel_scope.cancel()
            await _wait(server.hung_up)
            server.mode = "answer"
            outputs = await python.execute_dspy("qa", {"question": "?"}, session=session)
            assert outputs["answer"] == "forty-two"
        assert pool.get_stats().restarts == 0


async def _run(python: snakepit.PythonAPI, program: str, session: snakepit.SessionHandle) -> None:
    await python.execute_dspy(program, {"question": "?"}, session=session)


async def _drain(python: snakepit.PythonAPI, program: str, session: snakepit.SessionHandle) -> None:
    async with python.stream_dspy(program, {"question": "?"}, session=session) as chunks:
        async for _ in chunks:
            pass


async def test_leaving_a_stream_early_and_stopping_what_has_no_coroutine(server: Server) -> None:
    """A program of source text blocks its thread: what cannot be interrupted costs the worker, and not the program."""
    async with _pool(options=TRUSTED, cancel_grace=0.3) as pool, pool.session() as session:
        python = pool.python
        await python.configure_dspy("openai", server.config, session=session)
        await python.create_dspy_program("module", {"class_definition": ONE_STEP}, store_as="own", session=session)
        await python.create_dspy_program("chain_of_thought", QA, store_as="cot", session=session)
        server.go_on.clear()
        async with python.stream_dspy("cot", {"question": "?"}, session=session) as chunks:
            await anext(chunks)
        server.go_on.set()
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0
        for run in (_run, _drain):
            server.mode = "block"
            server.arrived.clear()
            server.hung_up.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, python, "own", session)
                await _wait(server.arrived)
                nursery.cancel_scope.cancel()
            await _wait(server.hung_up)
            server.mode = "answer"
            outputs = await python.execute_dspy("own", {"question": "?"}, session=session)
            assert outputs["answer"] == "forty-two"
