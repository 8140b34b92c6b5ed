"""All that takes a session takes a handle of it or its id, and methods of one name have the same parameters."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import snakepit_trio as snakepit
from bridge_py import SessionContext, tool
from bridge_py.adapters.python_calls import PythonCalls
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio.testing import InMemory

Use = Callable[[snakepit.Pool, Any], Awaitable[Any]]


class Tools(PythonCalls):
    """Says whose session its calls are in."""

    @tool
    def whose(self, context: SessionContext) -> str | None:
        return context.session_id

    @tool
    def whose_all(self, context: SessionContext) -> Iterator[str | None]:
        yield context.session_id


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as opened:
        yield opened  # noqa: ASYNC119


async def _stream(pool: snakepit.Pool, session: Any) -> Any:
    async with pool.stream("whose_all", session=session) as chunks:
        return await anext(chunks)


async def _execute_stream(pool: snakepit.Pool, session: Any) -> Any:
    found: list[Any] = []
    await pool.execute_stream("whose_all", {}, found.append, session=session)
    return found[0]


async def _map(pool: snakepit.Pool, session: Any) -> Any:
    async with pool.map("whose", [{}], session=session) as results:
        return await anext(results)


async def _stream_dspy(pool: snakepit.Pool, session: Any) -> Any:
    async with pool.python.stream_dspy("p", {}, session=session):
        pytest.fail("there is no program")


async def _bridged(pool: snakepit.Pool, session: Any) -> Any:
    return snakepit.BridgedState(pool, session).id


CALLS: dict[str, Use] = {
    "execute": lambda pool, session: pool.execute("whose", session=session),
    "stream": _stream,
    "execute_stream": _execute_stream,
    "map": _map,
    "BridgedState": _bridged,
}
DYNAMIC: dict[str, Use] = {
    "call": lambda pool, session: pool.python.call("math.sqrt", args=[4], session=session),
    "store": lambda pool, session: pool.python.store("x", 1, session=session),
    "retrieve": lambda pool, session: pool.python.retrieve("x", session=session),
    "list_stored": lambda pool, session: pool.python.list_stored(session=session),
    "delete_stored": lambda pool, session: pool.python.delete_stored("x", session=session),
    "inspect": lambda pool, session: pool.python.inspect("math.sqrt", session=session),
    "info": lambda pool, session: pool.python.info(session=session),
    "pipeline": lambda pool, session: pool.python.pipeline([("math.sqrt", {})], session=session),
    "create_model": lambda pool, session: pool.python.create_model("knn", store_as="m", session=session),
    "train_model": lambda pool, session: pool.python.train_model("m", {"X": [], "y": []}, session=session),
    "predict": lambda pool, session: pool.python.predict("m", [], session=session),
    "load_dataframe": lambda pool, session: pool.python.load_dataframe("csv", {"path": "x"}, session=session),
    "configure": lambda pool, session: pool.python.configure("numpy", {}, session=session),
    "configure_dspy": lambda pool, session: pool.python.configure_dspy("openai", {"model": "m"}, session=session),
    "create_dspy_program": lambda pool, session: pool.python.create_dspy_program(
        "predict", {"signature": "a -> b"}, store_as="p", session=session
    ),
}
PROGRAMS: dict[str, Use] = {
    "execute_dspy": lambda pool, session: pool.python.execute_dspy("p", {}, session=session),
    "stream_dspy": _stream_dspy,
    "save_dspy": lambda pool, session: pool.python.save_dspy("p", session=session),
    "execute_program_command": lambda pool, session: snakepit.session_helpers.execute_program_command(
        pool, session, "get_program", {"program_id": "p"}
    ),
}
NEEDS = {"create_dspy_program", "BridgedState", *PROGRAMS}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_takes_a_handle_or_an_id(pool: snakepit.Pool, name: str) -> None:
    async with pool.session() as session:
        for given in (session, session.id, pool.sessions.of(session.id)):
            assert await CALLS[name](pool, given) == session.id


@pytest.mark.parametrize("name", DYNAMIC)
async def test_a_dynamic_call_takes_a_handle_or_an_id(
    pool: snakepit.Pool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def execute(runner: CallRunner, tool: str, args: Any, timeout: Any, session: Any, **rest: Any) -> Any:
        asked.append(session)
        raise KeyError(tool)  # which library it would take is not what is tested

    async with pool.session() as session:
        monkeypatch.setattr(CallRunner, "execute", execute)
        for given in (session, session.id):
            with pytest.raises(KeyError):
                await DYNAMIC[name](pool, given)
        assert asked == [session.id, session.id]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_is_looked_for_in_a_session_given_as_handle_or_id(pool: snakepit.Pool, name: str) -> None:
    async with pool.session() as session:
        for given in (session, session.id):
            with pytest.raises(snakepit.ProgramNotFound, match=session.id):
                await PROGRAMS[name](pool, given)


@pytest.mark.parametrize("wrong", [3, b"x", ["x"]])
@pytest.mark.parametrize("name", [*CALLS, *DYNAMIC, *PROGRAMS])
async def test_what_is_no_session_is_told_in_one_line(pool: snakepit.Pool, name: str, wrong: Any) -> None:
    with pytest.raises(snakepit.UsageError, match=r"session=.* is no session's id") as caught:
        await (CALLS | DYNAMIC | PROGRAMS)[name](pool, wrong)
    assert str(caught.value).startswith(f"session={wrong!r} of ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(NEEDS))
async def test_what_is_for_a_session_says_so(pool: snakepit.Pool, name: str) -> None:
    with pytest.raises(snakepit.InvalidCall, match=r"is for a session: give session=") as caught:
        await (CALLS | DYNAMIC | PROGRAMS)[name](pool, None)
    assert "\n" not in str(caught.value)


# Signatures.

FACES = (snakepit.Pool, snakepit.SessionHandle, snakepit.Context, snakepit.PythonAPI)
#: A method for modules that add methods of their own, which always say what they were given.
INNER = {"PythonAPI.run"}
#: `Pool.await_ready` waits for workers, and is no call.
NO_CALLS = {"Pool.await_ready"}
#: What these parameters are, in each method that has them.
SHARED: dict[str, tuple[Any, ...]] = {
    "timeout": (snakepit.Pool.execute, inspect.Parameter.KEYWORD_ONLY),
    "retries": (snakepit.Pool.execute, inspect.Parameter.KEYWORD_ONLY),
    "session": (snakepit.Pool.execute, inspect.Parameter.KEYWORD_ONLY),
    "priority": (snakepit.Pool.execute, inspect.Parameter.KEYWORD_ONLY),
}


def methods(*faces: type) -> Iterator[tuple[str, str, Any]]:
    for face in faces:
        for name, function in inspect.getmembers(face, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{face.__name__}.{name}", name, function


def calls() -> list[Any]:
    return [
        pytest.param(each[2], id=each[0])
        for each in methods(*FACES, snakepit.ToolRegistry)
        if each[0] not in INNER | NO_CALLS
    ]


@pytest.mark.parametrize("function", calls())
def test_a_parameter_of_calls_is_the_same_everywhere(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    for name, (model, kind) in SHARED.items():
        if (found := parameters.get(name)) is None:
            continue
        expected = inspect.signature(model).parameters[name]
        assert found.kind is kind
        if name == "session" and found.default is found.empty:  # what makes no sense without one
            assert found.annotation == "SessionView | str"
        else:
            assert (found.default, found.annotation) == (expected.default, expected.annotation)


def test_methods_of_one_name_have_the_same_parameters() -> None:
    by_name: dict[str, list[tuple[str, Any]]] = {}
    for title, name, function in methods(*FACES):
        by_name.setdefault(name, []).append((title, inspect.signature(function).parameters))
    for (title, model), *others in by_name.values():
        for other, parameters in others:
            for name in model.keys() & parameters.keys() - {"self"}:
                shapes = [(each[name].kind, each[name].default) for each in (model, parameters)]
                assert shapes[0] == shapes[1], f"{title} and {other}: {name}"


def test_the_faces_of_a_call_differ_only_in_the_session() -> None:
    for name in ("execute", "stream", "execute_stream"):
        full = inspect.signature(getattr(snakepit.Pool, name)).parameters
        for face in (snakepit.SessionHandle, snakepit.Context):
            if hasattr(face, name):
                slips = ("more", "unknown")  # what only gets an error
                own = inspect.signature(getattr(face, name)).parameters
                assert [each for each in own if each not in slips] == [
                    each for each in full if each not in ("session", *slips)
                ]
