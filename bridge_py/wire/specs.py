"""The description of a tool that both sides know: its name, parameters, and how it is called and stopped."""

from __future__ import annotations

from typing import Literal

import msgspec

Cancel = Literal["interrupt", "cooperative", "kill"]


class ParameterSpec(msgspec.Struct, omit_defaults=True):
    """One parameter of a tool, as the other side sees it. `default` is the `repr` of the default value."""

    name: str
    type: str = "Any"
    description: str = ""
    required: bool = True
    default: str = ""


class ToolSpec(msgspec.Struct, omit_defaults=True):
    """One tool, as the other side sees it. `timeout`, in seconds, applies to calls that give no timeout."""

    name: str
    description: str = ""
    parameters: list[ParameterSpec] = []
    streaming: bool = False
    cancel: Cancel = "interrupt"
    idempotent: bool = False
    timeout: float | None = None
