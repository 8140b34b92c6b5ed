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
from bridge_py.tools.adapter import tool
from bridge_py.tools.context import AsyncSessionContext, CallContext, SessionContext

_TIMEOUT: Final = 300.0  # seconds; language models take their time


class _Kept:
    """The language model and the programs that have been built for one session."""

    def __init__(self) -> None:
        self.model: tuple[Model, Any] | None = None
        self.programs: dict[str, tuple[str, Any]] = {}  # by id: the recipe's build, and the program


class DspyPrograms:
    """The language models and programs that have been built for sessions. They go when their session ends.

    A call that still runs may build and keep some for an ended session.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def end(self, session_id: str) -> None:
        """Forget all that was built for a session, because the session has ended."""
        self._sessions.pop(session_id, None)

    def model(self, session_id: str | None, model: Model, allow_list: AllowAll) -> Any:
        """Return the language model of a session; make it if it is not made yet. Raises the errors of `Model.make`."""
        kept = self._of(session_id)
        if kept.model is None or kept.model[0].number != model.number:
            made = model.make(trusted=allow_list.trusted, allowed=allow_list.added_names("dspy"))
            kept.model = (model, made)
        return kept.model[1]

    def find(self, session_id: str | None, recipe: Recipe) -> Any:
        """Return the program of a recipe, or None if it must be built."""
        build, program = self._of(session_id).programs.get(recipe.id, ("", None))
        return program if build == recipe.build else None

    def keep(self, session_id: str | None, recipe: Recipe, program: Any) -> Any:
        """Keep a program that was built, and return it."""
        self._of(session_id).programs[recipe.id] = (recipe.build, program)
        return program

    def _of(self, session_id: str | None) -> _Kept:
        return _Kept() if session_id is None else self._sessions.setdefault(session_id, _Kept())


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
            self._model(context, model)
        return dynamic.reply(model.name)

    @tool(timeout=_TIMEOUT)
    async def dspy_create(
        self, context: AsyncSessionContext, program: Recipe, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Build a program, and return the description of its inputs and outputs."""
        dynamic = self.dynamic_call(context, placement)
        built = await dspy_programs.build(program, context, self.allow_list.trusted)
        self.dspy_programs.keep(context.session_id, program, built)
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
            found = await self._find(context, program)
            with dspy_programs.running(self._model(context, model), context):
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
            found = self.dspy_programs.find(context.session_id, program)
            if found is None:
                found = dspy_programs.assemble(program, self.allow_list.trusted)
                self.dspy_programs.keep(context.session_id, program, found)
            with dspy_programs.running(self._model(context, model)):
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
        yield self.dynamic_call(context, placement).reply(None)
        with hiding(model):
            found = await self._find(context, program)
            with dspy_programs.running(self._model(context, model), context):
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
        return dynamic.reply((await self._find(context, program)).dump_state())

    def _model(self, context: CallContext, model: Model) -> Any:
        return self.dspy_programs.model(context.session_id, model, self.allow_list)

    async def _find(self, context: AsyncSessionContext, recipe: Recipe) -> Any:
        found = self.dspy_programs.find(context.session_id, recipe)
        if found is not None:
            return found
        built = await dspy_programs.build(recipe, context, self.allow_list.trusted)
        return self.dspy_programs.keep(context.session_id, recipe, built)
