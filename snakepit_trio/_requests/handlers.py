"""What a worker may ask about the session of the call that it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from bridge_py.wire.errors import InvalidArguments, UnknownTool, fault_of
from bridge_py.wire.variable import AccessRules, Variable
from snakepit_trio.state.view import SessionView

#: Called with the session of the call, the name of the tool that it runs, and what it gave.
Handler = Callable[..., Awaitable[Any]]


async def handle(view: SessionView, tool: str, verb: str, arguments: list[Any]) -> Any:
    """The answer to a question. Raises what the worker is to raise; `UnknownTool` for what cannot be asked."""
    handler = _HANDLERS.get(verb)
    if handler is None:
        raise UnknownTool(f"a worker cannot ask for {verb!r}; it can for: {', '.join(_HANDLERS)}")
    try:
        answer = handler(view, tool, *arguments)
    except TypeError as error:
        raise InvalidArguments(f"{verb}: {error}") from None
    return await answer


async def _register_variable(
    view: SessionView, _tool: str, name: str, type: str, value: Any, constraints: Any, metadata: Any, rules: Any
) -> list[Any]:
    access_rules = None if rules is None else AccessRules(read_only=rules[0], owner=rules[1])
    found = await view.register_variable(
        name, type, value, constraints=constraints, metadata=metadata, access_rules=access_rules, source="worker"
    )
    return found.pack()


async def _get_variable(view: SessionView, _tool: str, identifier: str) -> list[Any]:
    return (await view.get_variable(identifier)).pack()


async def _get_variables(view: SessionView, _tool: str, identifiers: list[str]) -> Any:
    found, missing = await view.get_variables(identifiers)
    return [{name: variable.pack() for name, variable in found.items()}, missing]


async def _has_variable(view: SessionView, _tool: str, identifier: str) -> bool:
    return await view.has_variable(identifier)


async def _list_variables(view: SessionView, _tool: str, pattern: str) -> list[list[Any]]:
    return [found.pack() for found in await view.list_variables(pattern)]


async def _update_variable(
    view: SessionView, tool: str, identifier: str, value: Any, expected_version: int | None, metadata: Any
) -> list[Any]:
    found = await view.update_variable(
        identifier, value, expected_version=expected_version, metadata=metadata, source="worker", owner=tool
    )
    return found.pack()


async def _update_variables(view: SessionView, tool: str, updates: Any, atomic: bool, metadata: Any) -> Any:
    outcome = await view.update_variables(updates, atomic=atomic, metadata=metadata, source="worker", owner=tool)
    return {
        name: (found.pack(), None) if isinstance(found, Variable) else (None, fault_of(found))
        for name, found in outcome.items()
    }


async def _delete_variable(view: SessionView, tool: str, identifier: str) -> None:
    await view.delete_variable(identifier, owner=tool)


async def _store_program(view: SessionView, _tool: str, program_id: str, program: Any) -> None:
    await view.store_program(program_id, program)


async def _get_program(view: SessionView, _tool: str, program_id: str) -> Any:
    return await view.get_program(program_id)


async def _update_program(view: SessionView, _tool: str, program_id: str, changes: Any) -> Any:
    return await view.update_program(program_id, changes)


async def _delete_program(view: SessionView, _tool: str, program_id: str) -> None:
    await view.delete_program(program_id)


_HANDLERS: Final[dict[str, Handler]] = {
    "register_variable": _register_variable,
    "get_variable": _get_variable,
    "get_variables": _get_variables,
    "has_variable": _has_variable,
    "list_variables": _list_variables,
    "update_variable": _update_variable,
    "update_variables": _update_variables,
    "delete_variable": _delete_variable,
    "store_program": _store_program,
    "get_program": _get_program,
    "update_program": _update_program,
    "delete_program": _delete_program,
}
