"""Answers a worker's questions about the session of the call that it serves."""

from __future__ import annotations

from typing import Any

from bridge_py.wire.errors import InvalidArguments, UnknownTool
from bridge_py.wire.variable import AccessRules
from bridge_py.wire.verbs import VERBS, Verb, pack
from snakepit_trio.state.view import SessionView


async def handle(view: SessionView, tool: str, verb: str, arguments: list[Any]) -> Any:
    """Answer a question of a tool, `tool`, and return the answer in the form in which it is sent.

    Raises the error that the worker is to raise. It is `UnknownTool` if `verb` is unknown, and `InvalidArguments` if
    the number of arguments is wrong.
    """
    declared = VERBS.get(verb)
    if declared is None:
        raise UnknownTool(f"a worker cannot ask for {verb!r}; it can for: {', '.join(VERBS)}")
    found = await getattr(view, verb)(**_arguments(verb, declared, tool, arguments))
    return pack(declared.answer, found)


def _arguments(verb: str, declared: Verb, tool: str, given: list[Any]) -> dict[str, Any]:
    if len(given) != len(declared.parameters):
        names = ", ".join(declared.parameters)
        raise InvalidArguments(f"{verb} takes {len(declared.parameters)} arguments ({names}), and {len(given)} came")
    arguments = dict(zip(declared.parameters, given, strict=True))
    if (rules := arguments.get("access_rules")) is not None:
        arguments["access_rules"] = AccessRules(read_only=rules[0], owner=rules[1])
    if declared.has_source:
        arguments["source"] = "worker"
    if declared.has_owner:
        arguments["owner"] = tool
    return arguments
