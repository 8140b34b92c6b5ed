"""Hypothesis strategies for the property tests of applications that use a pool."""

from __future__ import annotations

from bridge_py.wire.public_names import publish
from snakepit_trio.testing.extra import MissingPackage

try:
    from .commands import Command, Concurrently, Execute, Outcome, Stream, carry_out, commands
    from .fault_plans import fault_plans, faults
    from .sendable import arrays, equal, plain_values, values
    from .tool_calls import Call, calls, tool_specs, wrong_calls
    from .typed_values import TypedValue, bad_values, variable_types, variables
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise MissingPackage("hypothesis") from None

__all__ = [
    "Call",
    "Command",
    "Concurrently",
    "Execute",
    "Outcome",
    "Stream",
    "TypedValue",
    "arrays",
    "bad_values",
    "calls",
    "carry_out",
    "commands",
    "equal",
    "fault_plans",
    "faults",
    "plain_values",
    "tool_specs",
    "values",
    "variable_types",
    "variables",
    "wrong_calls",
]

publish(__name__, __all__)
