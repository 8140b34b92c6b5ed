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
#: The tool of each worker of ours that describes its tools as JSON Schemas.
SCHEMAS: Final = "snakepit:schemas"
PICKLED: Final = "_pickled"  # ends the name of a tool that sends and reads pickles
FUNCTION_TOOLS: Final = frozenset(
    name + suffix
    for name in (RUN, RUN_ASYNC, ITERATE, ITERATE_ASYNC, RUN_EACH, RUN_EACH_ASYNC)
    for suffix in ("", PICKLED)
) | {SCHEMAS}
#: A call in a batch, and the batch itself, as they travel. The call waits in its worker until a batch names it.
ITEM: Final = "snakepit:item"
BATCH: Final = "snakepit:batch"
#: Names that no caller may use.
RESERVED: Final = FUNCTION_TOOLS | {ITEM, BATCH}

MOST_CALLS: Final = 1000  # in a batch
LONGEST_WAIT: Final = 60.0  # seconds that a batch may be collected


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
    `batch` is how many calls of a batch tool may run together, and `wait`, in seconds, how long they are collected.
    `resources` are the amounts, by name, that a call needs of its worker while it runs.
    """

    name: str
    description: str = ""
    parameters: list[ParameterSpec] = []
    streaming: bool = False
    cancel: Cancel = "interrupt"
    idempotent: bool = False
    timeout: float | None = None
    limit: int | None = None
    batch: int | None = None
    wait: float = 0.0
    resources: dict[str, float] = {}
