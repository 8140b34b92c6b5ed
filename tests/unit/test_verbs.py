"""All faces of a session have the same operations, with the same parameters: each is declared once, in `VERBS`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from bridge_py import AsyncSessionContext, SessionContext
from bridge_py.contract import host
from bridge_py.wire.verbs import VERBS
from snakepit_trio import BridgedState, LocalState, SessionHandle, SessionView, StateProvider

#: What the contract has no RPC for.
NOT_IN_THE_CONTRACT = {"store_program", "get_program", "update_program", "delete_program"}
#: Of variables alone: programs belong to sessions.
OF_VARIABLES = [verb for verb in VERBS if "program" not in verb]
IN_WORKERS = [SessionContext, AsyncSessionContext]
ON_HOSTS = [SessionView, SessionHandle]
PROVIDERS = [StateProvider, LocalState, BridgedState]
#: What only a worker may say: that what it remembers is not good enough.
OF_WORKERS = {"bypass_cache"}
#: What the host knows and does not take from a worker.
OF_HOSTS = {"source", "owner"}


def parameters(face: type, verb: str, besides: set[str]) -> dict[str, tuple[Any, Any]]:
    """The parameters of a method, by name: their kind and default."""
    found = inspect.signature(getattr(face, verb)).parameters
    return {name: (each.kind, each.default) for name, each in found.items() if name != "self" and name not in besides}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("face", [*IN_WORKERS, *ON_HOSTS])
def test_every_face_has_each_verb_with_its_parameters(face: type, verb: str) -> None:
    assert tuple(parameters(face, verb, OF_WORKERS | OF_HOSTS)) == VERBS[verb].parameters


@pytest.mark.parametrize("verb", OF_VARIABLES)
@pytest.mark.parametrize("face", PROVIDERS)
def test_every_provider_has_each_verb_of_variables(face: type, verb: str) -> None:
    assert tuple(parameters(face, verb, OF_HOSTS)) == VERBS[verb].parameters


@pytest.mark.parametrize("verb", VERBS)
def test_kinds_and_defaults_are_the_same_on_every_face(verb: str) -> None:
    faces = [*IN_WORKERS, *ON_HOSTS, *(PROVIDERS if verb in OF_VARIABLES else ())]
    first, *others = (parameters(face, verb, OF_WORKERS | OF_HOSTS) for face in faces)
    assert all(other == first for other in others)


@pytest.mark.parametrize("verb", VERBS)
def test_the_host_is_told_who_makes_a_change(verb: str) -> None:
    found = set(inspect.signature(getattr(SessionView, verb)).parameters)
    assert ("source" in found, "owner" in found) == (VERBS[verb].has_source, VERBS[verb].has_owner)


def test_the_contract_has_them_too() -> None:
    assert set(host._HANDLERS) - {"call_host_tool", "list_host_tools"} == set(VERBS) - NOT_IN_THE_CONTRACT


def test_contexts_have_no_operation_that_is_not_declared() -> None:
    for face in IN_WORKERS:
        public = {name for name in vars(face) if not name.startswith("_")}
        own = {"call_host_tool", "stream_host_tool", "host_tools", "get_variable_value", "assign"}
        assert public - own == set(VERBS)
