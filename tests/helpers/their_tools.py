"""Tools for clients with the habits of the Elixir system's Python programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bridge_py import tool
from tests.helpers.contract_tools import ContractTools


class TheirTools(ContractTools):
    """The common tools, and some more."""

    @tool
    def array(self, tensor: Any) -> Any:
        """The tensor as an array."""
        return np.asarray(tensor, dtype=float)

    @tool
    def endless(self) -> Iterator[int]:
        """Count without end, slowly."""
        n = 0
        while True:
            yield n
            n += 1
            time.sleep(0.05)

    @tool(timeout=0.2)
    def quick(self, seconds: float) -> str:
        """Take longer than its usual time."""
        time.sleep(seconds)
        return "done"
