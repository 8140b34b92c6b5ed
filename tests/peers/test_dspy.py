"""Programs of DSPy through `pool.python`: real workers, and DSPy's dummy language model or a server of our own."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter
from bridge_py.adapters.python_calls import PythonCalls
from bridge_py.dynamic.language_models import PROVIDERS, Model
from snakepit_trio import InvalidArguments, NotAllowed, ProgramNotFound, SessionNotFound, ToolError, UsageError
from tests.helpers.dspy_tools import Looking
from tests.helpers.openai_server import Server
from tests.helpers.workers import kill_worker

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("dspy") is None, reason="needs the extra: snakepit-trio[dspy]"),
    pytest.mark.usefixtures("untraced_workers"),
]
TRUSTED: dict[str, Any] = {"trusted": True}
SKY = {"answers": {"the sky": {"reasoning": "it is day", "answer": "blue"}, "grass": {"answer": "green"}}}
QA = {"signature": "question -> answer"}
TWO_STEPS = """
    class TwoSteps(dspy.Module):
        def __init__(self, shout=False):
            super().__init__()
            self.shorten = dspy.Predict("context -> query")
            self.answer = dspy.Predict("query, context -> answer")
            self.shout = shout

        def forward(self, context, style=""):
            query = self.shorten(context=context).query
            answer = self.answer(query=query, context=context).answer
            return {"answer": answer.upper() if self.shout else answer, "style": style}
"""


@asynccontextmanager
async def _pool(
    adapter: type[BaseAdapter] = PythonCalls, *, workers: int = 1, env: dict[str, str] | None = None, **config: Any
) -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(adapter, workers=workers, env=env, **config) as pool:
        yield pool


async def _wait(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 30)


# What programs there are, and what they return.


async def test_kinds_of_programs(tmp_path: Path) -> None:
    """Nothing is written to the user's home meanwhile."""
    async with _pool(env={"HOME": str(tmp_path)}) as pool, pool.session() as session:
        python = pool.python
        assert await python.configure("dspy", {"provider": "dummy", **SKY}, session=session) == "dummy"
        entry = await python.create_dspy_program("predict", QA, store_as="qa", session=session)
        assert {name: entry[name] for name in ("id", "kind", "signature", "inputs", "outputs", "worker")} == {
            "id": "qa",
            "kind": "predict",
            "signature": "question -> answer",
            "inputs": ["question"],
            "outputs": ["answer"],
            "worker": pool.list_workers()[0].id,
        }
        assert await session.get_program("qa") == entry
        assert await python.execute_dspy("qa", {"question": "What colour is grass?"}, session=session) == {
            "answer": "green"
        }
        await python.create_dspy_program("chain_of_thought", QA, store_as="cot", session=session)
        assert await python.execute_dspy("cot", {"question": "And the sky?"}, session=session) == {
            "reasoning": "it is day",
            "answer": "blue",
        }
        stored_lookalike = {"answers": {"stored.x": {"answer": "a text"}}}
        await python.configure_dspy("dummy", stored_lookalike, session=session)
        assert await python.execute_dspy("qa", {"question": "stored.x"}, session=session) == {"answer": "a text"}
    assert list(tmp_path.iterdir()) == []


async def test_a_program_that_calls_host_tools() -> None:
    steps = [
        {"next_thought": "double it", "next_tool_name": "double", "next_tool_args": {"n": 21}},
        {"next_thought": "list it", "next_tool_name": "up_to", "next_tool_args": {"n": 3}},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "as computed", "answer": 42},
    ]
    async with _pool() as pool, pool.session() as session:
        asked = []

        async def double(n: int) -> int:
            """Twice that."""
            asked.append(n)
            return 2 * n

        async def up_to(n: int) -> AsyncIterator[int]:
            for number in range(n):
                yield number

        pool.expose(double)
        session.expose(up_to)
        python = pool.python
        await python.configure_dspy("dummy", {"answers": [*steps, *steps]}, session=session)
        params = {"signature": "question -> answer: int", "tools": ["double", "up_to"]}
        await python.create_dspy_program("react", params, store_as="agent", session=session)
        for _ in range(2):  # the second time with what was built the first time
            outputs = await python.execute_dspy("agent", {"question": "twice 21?"}, session=session)
            assert outputs["answer"] == 42
            assert outputs["trajectory"]["observation_0"] == 42
            assert outputs["trajectory"]["observation_1"] == "[0, 1, 2]"
        assert asked == [21, 21]
        with pytest.raises(snakepit.UnknownTool, match="no host tool 'triple'; there are: double, up_to"):
            await python.create_dspy_program("react", {**QA, "tools": ["triple"]}, store_as="agent", session=session)


async def test_programs_from_source_text() -> None:
    async with _pool(options=TRUSTED) as pool, pool.session() as session:
        python = pool.python
        answers = [{"query": "q"}, {"answer": "hello"}] * 2
        await python.configure_dspy("dummy", {"answers": answers}, session=session)
        params = {"class_definition": TWO_STEPS, "arguments": {"shout": True}}
        entry = await python.create_dspy_program("module", params, store_as="two", session=session)
        assert (entry["inputs"], entry["optional"]) == (["context"], ["style"])
        outputs = await python.execute_dspy("two", {"context": "c", "style": "loud"}, session=session)
        assert outputs == {"answer": "HELLO", "style": "loud"}
        async with python.stream_dspy("two", {"context": "c"}, session=session) as chunks:
            *pieces, last = [chunk async for chunk in chunks]
        assert [piece["field"] for piece in pieces] == ["answer", "style"]
        assert last == {"prediction": {"answer": "HELLO", "style": ""}}
        both = TWO_STEPS + "\n" + "    class Other(dspy.Module):\n        pass\n"
        with pytest.raises(UsageError, match="by class_name=; there are: TwoSteps, Other"):
            await python.create_dspy_program("module", {"class_definition": both}, store_as="x", session=session)
        with pytest.raises(ToolError, match="SyntaxError"):
            await python.create_dspy_program("module", {"class_definition": "class ("}, store_as="x", session=session)
        assert await session.list_programs() == ["two"]


# Whose they are, and for how long.


async def test_sessions_in_one_worker_do_not_see_each_other() -> None:
    async with _pool(Looking) as pool:
        python = pool.python
        async with pool.session() as one, pool.session() as two:
            for session, answer in ((one, "one"), (two, "two")):
                await python.configure_dspy("dummy", {"answers": [{"answer": answer}] * 2}, session=session)
                await python.create_dspy_program("predict", QA, store_as="qa", session=session)
            for session, answer in ((one, "one"), (two, "two"), (one, "one")):
                assert await python.execute_dspy("qa", {"question": "?"}, session=session) == {"answer": answer}
            async with pool.session() as third:
                await python.create_dspy_program("predict", QA, store_as="qa", session=third)
                with pytest.raises(UsageError, match=rf"{third.id}' has no language model in this process: call"):
                    await python.execute_dspy("qa", {"question": "?"}, session=third)
                await python.configure_dspy("dummy", {"answers": [{"answer": "all"}] * 2})
                assert await python.execute_dspy("qa", {"question": "?"}, session=third) == {"answer": "all"}
                assert await python.execute_dspy("qa", {"question": "?"}, session=two) == {"answer": "two"}
                assert await pool.execute("kept") == 3
            assert await pool.execute("kept") == 2
        assert await pool.execute("kept") == 0
        assert set(python._models._models) == {None}
        with pytest.raises(SessionNotFound):
            await python.execute_dspy("qa", {"question": "?"}, session=one)
        with pytest.raises(SessionNotFound):
            await python.configure_dspy("dummy", SKY, session=one)
        assert set(python._models._models) == {None}
        assert await pool.execute("kept") == 0


async def test_calls_side_by_side_use_the_model_of_their_session(server: Server) -> None:
    """Nothing is remembered of their requests, and nothing is kept for a session that ends while its call runs."""
    async with _pool(Looking, concurrency=8, options=TRUSTED) as pool:
        python = pool.python
        async with pool.session() as one, pool.session() as two, trio.open_nursery() as nursery:
            for session in (one, two):
                config = {**server.config, "api_key": f"key of {session.id}"}
                await python.configure_dspy("openai", config, session=session)
                await python.create_dspy_program("chain_of_thought", QA, store_as="qa", session=session)
                for _ in range(6):
                    nursery.start_soon(_ask, python, session)
        assert len(server.requests) == 12
        for request in server.requests:
            assert request["messages"][-1]["content"].count(request["key"]) == 1
        assert await python.call("dspy.clients.base_lm.GLOBAL_HISTORY.__len__") == 0
        server.mode = "block"
        session_id = await python.create_session()
        await python.configure_dspy("openai", server.config, session=session_id)
        await python.create_dspy_program("predict", QA, store_as="qa", session=session_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask_in, python, session_id)
            await _wait(server.arrived)
            assert await pool.execute("kept") == 1
            await pool.sessions.delete_session(session_id)
            assert await pool.execute("kept") == 0
            nursery.cancel_scope.cancel()
        assert await pool.execute("kept") == 0


async def test_a_call_keeps_nothing_for_a_session_that_has_ended(tmp_path: Path) -> None:
    """It builds its program, and makes its model, after the end of its session, and then goes on."""
    definition = f"""
import pathlib, time

def wait(name):
    while (pathlib.Path({str(tmp_path)!r}) / name).exists():
        (pathlib.Path({str(tmp_path)!r}) / (name + "_begun")).touch()
        time.sleep(0.01)

class Slow(dspy.Module):
    def __init__(self):
        super().__init__()
        wait("build")

    def forward(self):
        wait("run")
        return {{}}
"""

    async def until(name: str) -> None:
        with trio.fail_after(60):
            while not (tmp_path / name).exists():
                await trio.sleep(0.01)

    async with _pool(Looking, concurrency=4, options=TRUSTED) as pool:
        python = pool.python
        session_id = await python.create_session()
        await python.configure_dspy("dummy", SKY, session=session_id)
        params = {"class_definition": definition}
        await python.create_dspy_program("module", params, store_as="slow", session=session_id)
        await python.save_dspy("slow", session=session_id)  # so that it is built again
        (tmp_path / "build").touch()
        (tmp_path / "run").touch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(python.execute_dspy, "slow", {}, session=session_id))
            await until("build_begun")
            await pool.sessions.delete_session(session_id)
            assert await pool.execute("kept") == 0
            (tmp_path / "build").unlink()
            await until("run_begun")
            assert await pool.execute("kept") == 0
            (tmp_path / "run").unlink()


async def _ask(python: snakepit.PythonAPI, session: snakepit.SessionHandle) -> None:
    outputs = await python.execute_dspy("qa", {"question": f"key of {session.id}"}, session=session)
    assert outputs["answer"] == "forty-two"


async def _ask_in(python: snakepit.PythonAPI, session_id: str) -> None:
    await python.execute_dspy("qa", {"question": "?"}, session=session_id)


@pytest.mark.slow
async def test_programs_outlive_their_worker(server: Server) -> None:
    """One that is killed between two calls, in the middle of one, or replaced."""
    async with _pool(workers=2, options={"allow": ["default", "dspy:LM"]}) as pool, pool.session() as session:
        python = pool.python
        assert await python.configure_dspy("openai", server.config, session=session) == "openai/m"
        entry = await python.create_dspy_program("chain_of_thought", QA, store_as="qa", session=session)
        await kill_worker(pool, _pid_of(pool, entry["worker"]))
        expected = {"reasoning": "because it is so", "answer": "forty-two"}
        assert await python.execute_dspy("qa", {"question": "?"}, session=session) == expected

        server.mode = "block"
        crashed: list[str] = []
        taken: list[Any] = []

        async def take() -> None:
            async with python.stream_dspy("qa", {"question": "?"}, session=session) as chunks:
                taken.extend([chunk async for chunk in chunks])

        async def crash() -> None:
            with pytest.raises(snakepit.WorkerCrashed) as caught:
                await python.execute_dspy("qa", {"question": "?"}, session=session)
            crashed.append(caught.value.worker_id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await _wait(server.arrived)
            busy = next(worker for worker in pool.list_workers() if worker.state is snakepit.WorkerState.BUSY)
            assert busy.pid is not None
            nursery.start_soon(take)  # waits for that worker, and is made anew when it dies
            with trio.fail_after(30):
                while not pool.get_stats().queued:
                    await trio.sleep(0.005)
            server.mode = "answer"
            os.kill(busy.pid, signal.SIGKILL)
        assert crashed == [busy.id]
        assert taken[-1] == {"prediction": expected}
        assert await python.execute_dspy("qa", {"question": "?"}, session=session) == expected
        for worker in pool.list_workers():
            await pool.workers.restart(worker.id)
        assert await python.execute_dspy("qa", {"question": "?"}, session=session) == expected
        assert await session.list_programs() == ["qa"]


def _pid_of(pool: snakepit.Pool, worker_id: str) -> int:
    worker = pool.workers.get(worker_id)
    assert worker is not None
    assert worker.pid is not None
    return worker.pid


LEARNING = """
class Learning(dspy.Module):
    def __init__(self):
        super().__init__()
        self.say = dspy.Predict("question -> answer")

    def forward(self, question):
        answer = self.say(question=question).answer
        self.say.demos.append(dspy.Example(question=question, answer=answer).with_inputs("question"))
        return {"answer": answer, "demos": len(self.say.demos)}
"""


async def test_what_a_program_has_learned_is_kept_if_it_is_saved() -> None:
    async with _pool(options=TRUSTED) as pool, pool.session() as session:
        python = pool.python
        await python.configure_dspy("dummy", {"answers": {"?": {"answer": "!"}}}, session=session)
        params = {"class_definition": LEARNING}
        await python.create_dspy_program("module", params, store_as="pupil", session=session)

        async def demos() -> int:
            outputs = await python.execute_dspy("pupil", {"question": "?"}, session=session)
            count: int = outputs["demos"]
            return count

        assert [await demos(), await demos()] == [1, 2]
        state = await python.save_dspy("pupil", session=session)
        assert state["say"]["demos"] == [{"question": "?", "answer": "!"}] * 2
        assert await demos() == 3
        await pool.workers.restart(pool.list_workers()[0].id)
        assert [await demos(), await demos()] == [3, 4]
        await python.create_dspy_program("module", params, store_as="twin", session=session, state=state)
        assert len((await python.save_dspy("twin", session=session))["say"]["demos"]) == 2
        with pytest.raises(UsageError, match="program 'twin': the state does not fit"):
            await python.create_dspy_program("predict", QA, store_as="twin", session=session, state={"other": {}})
        assert (await session.get_program("twin"))["kind"] == "module"


# What is refused.


async def test_what_is_refused_before_anything_runs() -> None:
    async with _pool() as pool, pool.session() as session:
        python = pool.python

        async def create(kind: str, **params: Any) -> None:
            await python.create_dspy_program(kind, params, store_as="x", session=session)

        with pytest.raises(NotAllowed, match="kind 'module' is not allowed: it runs the source text"):
            await create("module", class_definition="import os; os._exit(3)")
        with pytest.raises(NotAllowed, match="it runs code that a language model has written"):
            await create("program_of_thought", **QA)
        for kind in ("os.system", "'__import__(\"os\").abort()'", "antigravity", "Field(default=1)", "list['x']"):
            with pytest.raises(NotAllowed, match="of a signature is not allowed; there are: str, int"):
                await create("predict", signature=f"question: {kind} -> answer")
        with pytest.raises(UsageError, match="config of a program has no setting 'api_base'; there are: temperature"):
            await create("predict", **QA, config={"api_base": "http://127.0.0.1"})
        with pytest.raises(UsageError, match="no kind of program 'refine'; there are: predict, chain_of_thought"):
            await create("refine", **QA)
        with pytest.raises(UsageError, match="'predict' has no parameter 'tools'; there are: signature"):
            await create("predict", **QA, tools=[])
        with pytest.raises(UsageError, match="needs signature='question -> answer'"):
            await create("predict")
        with pytest.raises(UsageError, match="DSPy does not take its parameters: Invalid signature format"):
            await create("predict", signature="question")
        with pytest.raises(UsageError, match="needs tools="):
            await create("react", **QA)
        assert await session.list_programs() == []
        await create("predict", signature="question: Literal['a', 'b'], more: list[int] | None -> answer: float")


async def test_wrong_settings_and_inputs() -> None:
    async with _pool() as pool, pool.session() as session:
        python = pool.python
        with pytest.raises(UsageError, match="no provider 'opnai' of language models; there are: .*openai.*, dummy"):
            await python.configure_dspy("opnai", {"model": "m"}, session=session)
        with pytest.raises(UsageError, match="openai: say which model"):
            await python.configure_dspy("openai", {"api_key": "x"}, session=session)
        with pytest.raises(UsageError, match=r'dummy" takes one setting, "answers"'):
            await python.configure_dspy("dummy", session=session)
        with pytest.raises(UsageError, match="dspy: say who provides"):
            await python.configure("dspy", {"model": "m"}, session=session)
        with pytest.raises(UsageError, match="openai/m: DSPy does not take these settings: num_retries"):
            await python.configure_dspy("openai", {"model": "m", "api_key": "x", "num_retries": -1}, session=session)
        await python.create_dspy_program(
            "predict", {"signature": "context, question -> answer"}, store_as="qa", session=session
        )
        await python.configure_dspy("dummy", {"answers": [{"wrong": "field"}] * 4}, session=session)
        with pytest.raises(InvalidArguments, match="the input 'context' is missing; there are: context, question") as e:
            await python.execute_dspy("qa", {"question": "?"}, session=session)
        assert e.value.parameter == "context"
        with pytest.raises(InvalidArguments, match="no input 'lm'; there are"):
            async with python.stream_dspy("qa", {"question": "?", "context": "", "lm": 1}, session=session):
                pass
        with pytest.raises(ToolError, match="AdapterParseError"):
            await python.execute_dspy("qa", {"question": "?", "context": "c"}, session=session)
        with pytest.raises(ProgramNotFound):
            await python.execute_dspy("qb", {}, session=session)
        await session.store_program("mine", {"signature": "a -> b"})
        with pytest.raises(UsageError, match="program 'mine' of session .* is none of create_dspy_program"):
            await python.execute_dspy("mine", {}, session=session)


async def test_a_worker_without_dspy(tmp_path: Path) -> None:
    (tmp_path / "dspy.py").write_text("raise ModuleNotFoundError(name='dspy')")
    async with _pool(env={"PYTHONPATH": str(tmp_path)}) as pool, pool.session() as session:
        with pytest.raises(UsageError, match=r"pip install 'snakepit-trio\[dspy\]'"):
            await pool.python.configure_dspy("dummy", SKY, session=session)
        assert await pool.python.call("math.sqrt", args=[9.0]) == 3.0


# Keys.

TELLING = """
class Telling(dspy.Module):
    def forward(self, how):
        import logging
        key = dspy.settings.lm.kwargs["api_key"]
        if how == "raise":
            raise ValueError(f"I know {key}")
        logging.getLogger("telling").warning("the key is %s", key)
        try:
            raise KeyError(key)
        except KeyError:
            logging.getLogger("telling").exception("failed")
        return "told"
"""


async def test_keys_are_not_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Not by errors, logs, reprs, exports, or what is said of sessions and programs; but the server gets them."""
    caplog.set_level(logging.DEBUG)
    said: list[Any] = []
    key = server.config["api_key"]
    server.mode = "refuse"
    async with _pool(options=TRUSTED) as pool, pool.session() as session:
        python = pool.python
        said.append(await python.configure_dspy("openai", server.config, session=session))
        said.append(await python.create_dspy_program("predict", QA, store_as="qa", session=session))
        with pytest.raises(ToolError, match="hidden") as refused:
            await python.execute_dspy("qa", {"question": "?"}, session=session)
        said += [refused.value, refused.value.__notes__]
        with pytest.raises(ToolError) as refused:
            async with python.stream_dspy("qa", {"question": "?"}, session=session) as chunks:
                _ = [chunk async for chunk in chunks]
        said += [refused.value, refused.value.__notes__]
        params = {"class_definition": TELLING}
        said.append(await python.create_dspy_program("module", params, store_as="telling", session=session))
        with pytest.raises(ToolError, match=r"I know \[hidden\]") as refused:
            await python.execute_dspy("telling", {"how": "raise"}, session=session)
        said += [refused.value, refused.value.__notes__]
        assert await python.execute_dspy("telling", {"how": "log"}, session=session) == {"output": "told"}
        said += [await python.info(session=session), await session.info(), await python.list_stored(session=session)]
        said += [await pool.sessions.export_session(session.id), python._models.get(session.id)]
        with pytest.raises(UsageError) as wrong:
            await python.configure_dspy("openai", {**server.config, "num_retries": key}, session=session)
        said += [wrong.value]
    assert {request["key"] for request in server.requests} == {key}
    assert key not in repr(said)
    assert "the key is [hidden]" in caplog.text
    assert "KeyError: '[hidden]'" in caplog.text
    assert key not in caplog.text


def test_what_counts_as_a_secret() -> None:
    config = {
        "model": "openai/gpt",
        "api_key": "0123456789",
        "extra_headers": {"X-Org": "organisation"},
        "aws_secret_access_key": ["abcdefgh"],
        "max_tokens": 1000,
        "api_base": "http://somewhere",
        "vertex_credentials": "short",
    }
    model = Model(1, "openai", config)
    assert set(model.secrets()) == {"0123456789", "organisation", "abcdefgh"}
    assert repr(model) == "<language model openai/gpt>"
    assert {Model(1, provider, {"model": "m"}).name for provider in PROVIDERS} >= {"gemini/m", "ollama_chat/m"}
