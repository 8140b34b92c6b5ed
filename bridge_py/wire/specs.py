"""The description of a tool that both sides know: its name, parameters, and how it is called and stopped."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Cancel = Literal["interrupt", "cooperative", "kill"]

#: Tools that each worker of ours has, which run functions of the host. Callers of tools cannot reach them by name.
RUN: Final = "snakepit:run"
RUN_ASYNC: Final = "snakepit:run_async"
ITERATE: Final = "snakepit:iterate"
ITERATE_ASYNC: Final = "snakepit:iterate_async"
RUN_EACH: Final = "snakepit:run_each"
RUN_EACH_ASYNC: Final = "snakepit:run_each_async"
PICKLED: Final = "_pickled"  # ends the name of a tool that sends and reads pickles
FUNCTION_TOOLS: Final = frozenset(
    name + suffix
    for name in (RUN, RUN_ASYNC, ITERATE, ITERATE_ASYNC, RUN_EACH, RUN_EACH_ASYNC)
    for suffix in ("", PICKLED)
)


class ParameterSpec(msgspec.Struct, omit_defaults=True):
    """One parameter of a tool, as the other side sees it. `default` is the `repr` of the default value."""

    name: str
    type: str = "Any"
    description: str = ""
    required: bool = True
    default: str = ""


class ToolSpec(msgspec.Struct, omit_defaults=True):
    """One tool, as the other side sees it.

    `timeout`, in seconds, applies to calls that give no timeout. `limit` is how many of its calls may run at once.
    """

    name: str
    description: str = ""
    parameters: list[ParameterSpec] = []
    streaming: bool = False
    cancel: Cancel = "interrupt"
    idempotent: bool = False
    timeout: float | None = None
    limit: int | None = None
