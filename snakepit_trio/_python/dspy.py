"""The part of `pool.python` for DSPy: language models of sessions, and programs that any worker can rebuild."""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from bridge_py.dynamic.dspy_programs import Recipe, check_kind
from bridge_py.dynamic.language_models import Model
from bridge_py.dynamic.references import check_name
from bridge_py.wire.errors import InvalidArguments, UsageError
from snakepit_trio._calls.call import DEFAULT, CallWorker, Displaced, Timeout, needed_session_id, session_id_of
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio._util.blocks import block
from snakepit_trio._util.ownership import require_trio
from snakepit_trio.state.session import Session
from snakepit_trio.state.store import SessionStore

from .placements import ObjectPlacement, ObjectPlacements

if TYPE_CHECKING:
    from snakepit_trio.state.view import SessionView
    from snakepit_trio.state.watching import Hub

_IS_DSPY: Final = "dspy"
_NOTHING: Final[Mapping[str, Any]] = {}


class Models:
    """Language models by session, only in the memory of this process. The key None has the pool's own model."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._numbers = itertools.count(1)
        self._models: dict[str | None, Model] = {}

    def new(self, provider: str, config: Mapping[str, Any]) -> Model:
        """Make a model that no session has yet. Raises `UsageError` if it is invalid."""
        model = Model(next(self._numbers), provider, dict(config))
        _ = model.name
        return model

    def put(self, session_id: str | None, model: Model) -> None:
        """Give a session its model, in place of any earlier one, until the session ends. None stands for the pool."""
        self._models[session_id] = model
        if session_id is not None:
            self._hub.subscribe(session_id, self, lambda changes: self._hear(session_id, changes))

    def get(self, session_id: str) -> Model:
        """The model of a session, else the pool's. Raises `UsageError` if there is neither."""
        found = self._models.get(session_id) or self._models.get(None)
        if found is None:
            raise UsageError(
                f"session {session_id!r} has no language model in this process: call configure_dspy(provider, config,"
                " session=...) first, or without a session for all. Models are not kept in the session store"
            )
        return found

    def name(self, session_id: str) -> str:
        """The name of the session's model, else of the pool's. An empty text if there is neither."""
        found = self._models.get(session_id) or self._models.get(None)
        return "" if found is None else found.name

    def close(self) -> None:
        """Stop listening to sessions, and forget all models. For a pool that has ended."""
        for session_id in self._models:
            if session_id is not None:
                self._hub.unsubscribe(session_id, self)
        self._models.clear()

    def _hear(self, session_id: str, changes: object) -> None:
        if changes is None:
            self._models.pop(session_id, None)


class DspyAPI:
    """The methods of `PythonAPI` for DSPy.

    A program is an entry of its session's programs. Workers build it when they need it.
    """

    _runner: CallRunner
    _store: SessionStore
    _placements: ObjectPlacements
    _models: Models

    async def configure_dspy(
        self,
        provider: str,
        config: Mapping[str, Any] = _NOTHING,
        *,
        session: SessionView | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> str:
        """Give a session its language model, or without a session all sessions that have none. Returns its name.

        `provider` is "openai", "anthropic", "gemini", "ollama", ... or "dummy". `config` is {"model": "..."} and
        whatever `dspy.LM` takes: "api_key", "api_base", "temperature", ... The settings stay in this process's memory
        until the session ends, and are sent along with calls. The provider is not asked anything yet. If this is
        cancelled, or raises, it changes nothing. Raises `UsageError`, which lists the providers, and `SessionNotFound`.
        """
        model = self._models.new(provider, config)
        session_id = session_id_of(session, "configure_dspy")
        await self.run("dspy_configure", {"model": msgspec.structs.asdict(model)}, session, timeout)
        if session_id is not None:
            await self._store.get_session(session_id)  # raises if it has ended: the hub tells of later ends only
        self._models.put(session_id, model)
        return model.name

    async def create_dspy_program(
        self,
        kind: str,
        params: Mapping[str, Any],
        *,
        store_as: str,
        session: SessionView | str,
        state: Mapping[str, Any] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> dict[str, Any]:
        """Make a program, and store its description as the session's program `store_as`. Returns the description.

        `kind` is "predict", "chain_of_thought", "react", "program_of_thought" or "module"; see docs/dspy.md for their
        parameters. `state` is the result of a program's `dump_state()`, for example after it was optimised. Raises
        `UsageError` for an invalid program, `NotAllowed` for the last two kinds if the adapter is not trusted, and
        `QuotaExceeded`.
        """
        recipe = _recipe(check_name(store_as), kind, params, state)
        session_id = needed_session_id(session, "create_dspy_program")
        workers: list[CallWorker] = []
        found = await self.run("dspy_create", {"program": recipe}, session, timeout, claimed=workers.append)
        made = {"model": self._models.name(session_id), "created_at": time.time(), "worker": workers[-1].id}
        entry = {"type": _IS_DSPY, **recipe, **found, **made}
        await self._store.of(session_id).store_program(store_as, entry)
        return entry

    async def execute_dspy(
        self, program: str, inputs: Mapping[str, Any], *, session: SessionView | str, timeout: Timeout = DEFAULT
    ) -> dict[str, Any]:
        """Run a program and return its outputs by name, "reasoning" included; a module's outputs as it returns them.

        Inputs are plain values: a text such as "stored.x" is only a text. Raises `InvalidArguments`, which names an
        input that is missing or unknown, before anything runs; `ProgramNotFound`; `ToolError` for errors of DSPy.
        Cancelling stops the program, even in the middle of a request, and leaves the session's programs as they are.
        """
        arguments, is_async = await self._prepare(program, inputs, needed_session_id(session, "execute_dspy"))
        tool = "dspy_execute" if is_async else "dspy_execute_blocking"
        outputs: dict[str, Any] = await self.run(tool, arguments, session, timeout)
        return outputs

    @block("async with pool.python.stream_dspy(...) as chunks")
    async def stream_dspy(
        self, program: str, inputs: Mapping[str, Any], *, session: SessionView | str, timeout: Timeout = DEFAULT
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Run a program: `async with python.stream_dspy(...) as chunks`, then `async for chunk in chunks`.

        Chunks are {"field": "answer", "piece": "Pa", "predictor": "self"}, in the pieces that the language model sends.
        They come for all text fields that predictors of the program give; a field that does not come in pieces is one
        chunk. The last chunk is {"prediction": {...}}. Leaving the block stops the program. Raises as `execute_dspy`
        does.
        """
        session_id = needed_session_id(session, "stream_dspy")
        arguments, _ = await self._prepare(program, inputs, session_id)
        async with self._stream("dspy_stream", arguments, session_id, timeout) as chunks:
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    async def save_dspy(
        self, program: str, *, session: SessionView | str, timeout: Timeout = DEFAULT
    ) -> dict[str, Any]:
        """Store the state that a program has in its worker (`dump_state`), and return the state.

        From now on workers rebuild the program with this state. Raises `UsageError` if the program was created anew
        meanwhile.
        """
        session_id = needed_session_id(session, "save_dspy")
        recipe = await self._recipe(program, session_id)
        state: dict[str, Any] = await self.run("dspy_state", {"program": _sent(recipe)}, session, timeout)

        def put(found: Session) -> None:
            entry = found.get_program(program)
            if not isinstance(entry, dict) or entry.get("build") != recipe["build"]:
                raise UsageError(f"program {program!r} was created anew while its state was read: save it again")
            found.change_program(program, {"state": state, "build": secrets.token_hex(8)})

        await self._store.update_session(session_id, put)
        return state

    async def _prepare(self, program: str, inputs: Mapping[str, Any], session_id: str) -> tuple[dict[str, Any], bool]:
        """The arguments of the tools that run a program, and whether the program has a coroutine."""
        recipe = await self._recipe(program, session_id)
        _check_inputs(program, recipe, inputs)
        model = msgspec.structs.asdict(self._models.get(session_id))
        return {"model": model, "program": _sent(recipe), "inputs": dict(inputs)}, recipe["is_async"]

    async def _recipe(self, program: str, session_id: str) -> dict[str, Any]:
        found = await self._store.of(session_id).get_program(program)
        if not isinstance(found, dict) or found.get("type") != _IS_DSPY:
            raise UsageError(
                f"program {program!r} of session {session_id!r} is none of create_dspy_program: make it by that"
            )
        return found

    @asynccontextmanager
    async def _stream(
        self, tool: str, arguments: Mapping[str, Any], session_id: str, timeout: Timeout
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """Run a streaming tool as `run` does. The tool's first chunk is the reply of its `DynamicCall`."""
        require_trio()
        self._check_tool(tool)
        budget = self._runner.budget(tool, arguments, timeout, 1)
        deadline = math.inf if budget is None else trio.current_time() + budget
        while True:
            await self._store.get_session(session_id)
            objects = await self._placements.open(session_id)
            placement = objects.placement()
            sent = {**arguments, "placement": msgspec.structs.asdict(placement)}

            def claim(worker: CallWorker, number: int = placement.number, objects: ObjectPlacement = objects) -> bool:
                return objects.claim(worker, number)

            with self._placements.call(objects, ()):
                left = None if budget is None else max(0.0, deadline - trio.current_time())
                async with self._runner.stream(tool, sent, left, session_id, claim) as chunks:
                    try:
                        objects.hear(placement, await anext(chunks), {})
                    except Displaced:  # the session's worker ended before the call could start there
                        continue
                    yield chunks
                    return

    def _check_tool(self, tool: str) -> None:
        raise NotImplementedError

    async def run(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        session: SessionView | str | None,
        timeout: Timeout,
        *stores: str | None,
        durable: bool = False,
        value: Any = None,
        claimed: Callable[[CallWorker], object] | None = None,
    ) -> Any:
        """Call a tool whose worker side is a `DynamicCall`, and return the value of its reply.

        `stores` are the names under which the call may store objects. With `durable` the host keeps a copy of the
        object with the first name; `value` is copied at once if it has no references in it. If there is a session,
        `claimed` is called with the worker that takes the call.
        """
        raise NotImplementedError


def split_settings(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The provider, and the other settings. Raises `UsageError` if there is no provider."""
    if not isinstance(settings.get("provider"), str):
        raise UsageError('dspy: say who provides the language model, as in {"provider": "openai", "model": "..."}')
    return settings["provider"], {name: value for name, value in settings.items() if name != "provider"}


def _recipe(id: str, kind: str, params: Mapping[str, Any], state: Mapping[str, Any] | None) -> dict[str, Any]:
    check_kind(kind, params)
    saved = None if state is None else dict(state)
    return msgspec.structs.asdict(
        Recipe(id=id, kind=kind, params=dict(params), build=secrets.token_hex(8), state=saved)
    )


def _sent(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: recipe[name] for name in Recipe.__struct_fields__}


def _check_inputs(program: str, recipe: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    if not isinstance(inputs, Mapping):
        raise InvalidArguments(
            f"the inputs of program {program!r} are of type {type(inputs).__name__}; give a dict by name"
        )
    known = [*recipe["inputs"], *recipe["optional"]]
    there = ", ".join(known) or "none"
    for name in recipe["inputs"]:
        if name not in inputs:
            raise InvalidArguments(f"program {program!r}: the input {name!r} is missing; there are: {there}", name)
    for name in inputs:
        if name not in known and not recipe["takes_any"]:
            raise InvalidArguments(f"program {program!r} has no input {name!r:.100}; there are: {there}", str(name))
