"""The operations on a session that the code of a call may ask for. Each is declared once.

A question is a verb with its arguments, in the order of its parameters. The host carries it out on its view of the
session, which has a method of that name. The awaiting and the blocking contexts of tools have such a method too. The
kind of an answer decides how it crosses the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from .errors import Fault, error_of, fault_of
from .variable import Variable


class AnswerKind(Enum):
    """The kinds of answers."""

    VALUE = "value"
    VARIABLE = "variable"
    VARIABLES = "variables"
    FOUND = "found"  # variables by the identifiers asked for, and the missing identifiers
    OUTCOMES = "outcomes"  # by name: a variable, or the error


class Verb(NamedTuple):
    """One operation on a session."""

    parameters: tuple[str, ...]
    answer: AnswerKind = AnswerKind.VALUE
    has_source: bool = False  # its method gets `source`, which notes that a worker has made the change
    has_owner: bool = False  # its method gets the name of the tool that asks, for variables with an owner


VERBS: Final[Mapping[str, Verb]] = {
    "register_variable": Verb(
        ("name", "type", "value", "constraints", "metadata", "access_rules"), AnswerKind.VARIABLE, has_source=True
    ),
    "get_variable": Verb(("identifier",), AnswerKind.VARIABLE),
    "get_variables": Verb(("identifiers",), AnswerKind.FOUND),
    "has_variable": Verb(("identifier",)),
    "list_variables": Verb(("pattern",), AnswerKind.VARIABLES),
    "update_variable": Verb(
        ("identifier", "value", "expected_version", "metadata"), AnswerKind.VARIABLE, has_source=True, has_owner=True
    ),
    "update_variables": Verb(("updates", "atomic", "metadata"), AnswerKind.OUTCOMES, has_source=True, has_owner=True),
    "delete_variable": Verb(("identifier",), has_owner=True),
    "store_program": Verb(("program_id", "program")),
    "get_program": Verb(("program_id",)),
    "update_program": Verb(("program_id", "changes")),
    "delete_program": Verb(("program_id",)),
}


def pack(answer: AnswerKind, found: Any) -> Any:
    """Turn an answer into the form in which it is sent."""
    match answer:
        case AnswerKind.VARIABLE:
            return found.pack()
        case AnswerKind.VARIABLES:
            return [variable.pack() for variable in found]
        case AnswerKind.FOUND:
            variables, missing = found
            return [{name: variable.pack() for name, variable in variables.items()}, missing]
        case AnswerKind.OUTCOMES:
            return {
                name: (outcome.pack(), None) if isinstance(outcome, Variable) else (None, fault_of(outcome))
                for name, outcome in found.items()
            }
        case AnswerKind.VALUE:
            return found


def unpack(answer: AnswerKind, packed: Any, variable: Callable[[Any], Variable]) -> Any:
    """Turn an answer that has come into its values; `variable` makes each variable, as `Variable.unpack` does."""
    match answer:
        case AnswerKind.VARIABLE:
            return variable(packed)
        case AnswerKind.VARIABLES:
            return [variable(each) for each in packed]
        case AnswerKind.FOUND:
            variables, missing = packed
            return {name: variable(each) for name, each in variables.items()}, missing
        case AnswerKind.OUTCOMES:
            return {
                name: variable(each) if fault is None else error_of(msgspec.convert(fault, Fault))
                for name, (each, fault) in packed.items()
            }
        case AnswerKind.VALUE:
            return packed
