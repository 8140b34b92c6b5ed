"""An adapter whose worker leaves out results of functions that are called for several items."""

from __future__ import annotations

from typing import Any

from bridge_py import BaseAdapter
from bridge_py.tools import functions


class Tools(BaseAdapter):
    """Its worker lies from its start on."""

    def setup(self) -> None:
        functions._Each.outcome = _without_the_first  # type: ignore[method-assign]  # this is the lie


def _without_the_first(self: functions._Each) -> Any:
    return self._ways.exact({"values": self.values[1:], "errors": []})
