"""The worker's side of DSPy through `pool.python`. Every `PythonCalls` has these tools, which import DSPy when needed.

The worker never holds the only copy: each call brings its language model and the recipe of its program. The worker
keeps the model and the program that it has built for later calls of the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from bridge_py.dynamic import dspy_programs
from bridge_py.dynamic.allow_list import AllowAll
from bridge_py.dynamic.dspy_programs import Recipe
from bridge_py.dynamic.dynamic_call import DynamicCall
from bridge_py.dynamic.language_models import Model, hiding
from bridge_py.dynamic.stored_objects import ObjectStore
from bridge_py.tools.adapter import tool
from bridge_py.tools.context import AsyncSessionContext, CallContext, SessionContext

_TIMEOUT: Final = 300.0  # seconds; language models take their time


class _Kept:
    """The language model and the programs that have been built for one session."""

    def __init__(self) -> None:
        self.model: tuple[Model, Any] | None = None
        self.programs: dict[str, tuple[str, Any]] = {}  # by id: the recipe's build, and the program


class DspyPrograms:
    """The language models and programs that have been built for sessions.

    They are kept beside the objects of their session, which a call holds from its beginning. So they go with the
    session, and a call that still runs keeps nothing for a session that has ended. A call without stored objects
    keeps nothing at all.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return self._store.kept_beside

    def model(self, call: DynamicCall, model: Model, allow_list: AllowAll) -> Any:
        """Return the language model of a call's session; make it if need be. Raises the errors of `Model.make`."""
        kept = _kept_for(call)
        if kept.model is None or kept.model[0].number != model.number:
            made = model.make(trusted=allow_list.trusted, allowed=allow_list.added_names("dspy"))
            kept.model = (model, made)
        return kept.model[1]

    def find(self, call: DynamicCall, recipe: Recipe) -> Any:
        """Return the program of a recipe, or None if it must be built."""
        build, program = _kept_for(call).programs.get(recipe.id, ("", None))
        return program if build == recipe.build else None

    def keep(self, call: DynamicCall, recipe: Recipe, program: Any) -> Any:
        """Keep a program that was built, and return it."""
        _kept_for(call).programs[recipe.id] = (recipe.build, program)
        return program


def _kept_for(call: DynamicCall) -> _Kept:
    objects = call.known_objects
    if objects is None:
        return _Kept()
    kept: _Kept = objects.beside.setdefault("dspy", _Kept())
    return kept


class DspyTools:
    """Tools for an adapter that has an allow list and makes dynamic calls."""

    allow_list: AllowAll
    dspy_programs: DspyPrograms

    def dynamic_call(self, context: CallContext, placement: dict[str, Any] | None) -> DynamicCall:
        """Make the `DynamicCall` with which a tool names and keeps stored objects. The tool returns its `reply`."""
        raise NotImplementedError

    @tool(timeout=_TIMEOUT)
    async def dspy_configure(
        self, context: AsyncSessionContext, model: Model, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make a language model, and return its name."""
        dynamic = self.dynamic_call(context, placement)
        with hiding(model):
            self._model(dynamic, model)
        return dynamic.reply(model.name)

    @tool(timeout=_TIMEOUT)
    async def dspy_create(
        self, context: AsyncSessionContext, program: Recipe, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Build a program, and return the description of its inputs and outputs."""
        dynamic = self.dynamic_call(context, placement)
        built = await dspy_programs.build(program, context, self.allow_list.trusted)
        self.dspy_programs.keep(dynamic, program, built)
        return dynamic.reply(dspy_programs.describe(built))

    @tool(timeout=_TIMEOUT)
    async def dspy_execute(
        self,
        context: AsyncSessionContext,
        model: Model,
        program: Recipe,
        inputs: dict[str, Any],
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a program, and return its outputs."""
        dynamic = self.dynamic_call(context, placement)
        with hiding(model):
            found = await self._find(dynamic, context, program)
            with dspy_programs.running(self._model(dynamic, model), context):
                dspy_programs.check_inputs(found, inputs)
                return dynamic.reply(dspy_programs.plain(await found.acall(**inputs)))

    @tool(timeout=_TIMEOUT)
    def dspy_execute_blocking(
        self,
        context: SessionContext,
        model: Model,
        program: Recipe,
        inputs: dict[str, Any],
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a program that has no coroutine, and return its outputs. Such programs have no host tools."""
        dynamic = self.dynamic_call(context, placement)
        with hiding(model):
            found = self.dspy_programs.find(dynamic, program)
            if found is None:
                found = dspy_programs.assemble(program, self.allow_list.trusted)
                self.dspy_programs.keep(dynamic, program, found)
            with dspy_programs.running(self._model(dynamic, model)):
                dspy_programs.check_inputs(found, inputs)
                return dynamic.reply(dspy_programs.plain(found(**inputs)))

    @tool(timeout=_TIMEOUT)
    async def dspy_stream(
        self,
        context: AsyncSessionContext,
        model: Model,
        program: Recipe,
        inputs: dict[str, Any],
        placement: dict[str, Any] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Run a program; yields a reply, and then its outputs in pieces."""
        dynamic = self.dynamic_call(context, placement)
        yield dynamic.reply(None)
        with hiding(model):
            found = await self._find(dynamic, context, program)
            with dspy_programs.running(self._model(dynamic, model), context):
                dspy_programs.check_inputs(found, inputs)
                async with aclosing(dspy_programs.stream(found, inputs)) as pieces:
                    async for piece in pieces:
                        yield piece  # noqa: ASYNC119 - the executor closes this generator

    @tool(timeout=_TIMEOUT)
    async def dspy_state(
        self, context: AsyncSessionContext, program: Recipe, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the state of a program: demonstrations, instructions, and all else that it has learned."""
        dynamic = self.dynamic_call(context, placement)
        return dynamic.reply((await self._find(dynamic, context, program)).dump_state())

    def _model(self, dynamic: DynamicCall, model: Model) -> Any:
        return self.dspy_programs.model(dynamic, model, self.allow_list)

    async def _find(self, dynamic: DynamicCall, context: AsyncSessionContext, recipe: Recipe) -> Any:
        found = self.dspy_programs.find(dynamic, recipe)
        if found is not None:
            return found
        built = await dspy_programs.build(recipe, context, self.allow_list.trusted)
        return self.dspy_programs.keep(dynamic, recipe, built)
