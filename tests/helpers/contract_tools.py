"""The tools that the conformance tests call, as every worker of them has them: here, as one of ours."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from bridge_py import BaseAdapter, SessionContext, tool


class ContractTools(BaseAdapter):
    """All of them."""

    @tool
    def echo(self, value: Any) -> Any:
        """The value."""
        return value

    @tool
    def add(self, a: float, b: float) -> float:
        """The sum."""
        return a + b

    @tool
    def fail(self, message: str) -> None:
        """Raise."""
        raise ValueError(message)

    @tool
    def slow(self, seconds: float) -> str:
        """Take time."""
        time.sleep(seconds)
        return "done"

    @tool
    def count(self, n: int) -> Iterator[dict[str, int]]:
        """Count."""
        for i in range(n):
            yield {"i": i}

    @tool
    def count_slowly(self) -> Iterator[int]:
        """Count to one, and take time."""
        yield 0
        time.sleep(600)
        yield 1

    @tool
    def fail_after(self, n: int, message: str) -> Iterator[dict[str, int]]:
        """Count, and raise."""
        yield from self.count(n)
        raise ValueError(message)

    @tool
    def get_var(self, ctx: SessionContext, name: str) -> Any:
        """A variable's value."""
        return ctx[name]

    @tool
    def set_var(self, ctx: SessionContext, name: str, value: Any) -> int:
        """Set a variable; returns its version."""
        ctx[name] = value
        return ctx.get_variable(name).version

    @tool
    def call_host(self, ctx: SessionContext, tool: str, args: dict[str, Any]) -> Any:
        """Call a host tool."""
        return ctx.call_host_tool(tool, **args)

    @tool
    def host_tools(self, ctx: SessionContext) -> list[str]:
        """The names of the host tools."""
        return sorted(ctx.host_tools)

    @tool
    def sum(self, tensor: Any) -> float:
        """The sum of a tensor's numbers."""
        return float(tensor.sum() if hasattr(tensor, "sum") else _sum(tensor))

    @tool
    def die(self) -> None:
        """End the process."""
        os._exit(3)

    @tool
    def pid(self) -> int:
        """The worker's pid."""
        return os.getpid()


class SecretTools(ContractTools):
    """The same tools, with a secret among their options."""

    def __init__(self, password: str) -> None:
        self.password = password


def _sum(value: Any) -> float:
    return sum(map(_sum, value)) if isinstance(value, list) else value
