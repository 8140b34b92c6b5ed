"""The tools of the pool that is in the picture of the dashboard."""

from __future__ import annotations

import random
import time

from bridge_py import BaseAdapter, tool


class Shop(BaseAdapter):
    """Tools that take their time."""

    @tool
    def price(self) -> float:
        """Take some milliseconds."""
        time.sleep(random.uniform(0.005, 0.04))  # noqa: S311 - a load for a picture, no secret
        return 1.0

    @tool
    def classify(self) -> str:
        """Take a tenth of a second or so."""
        time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - a load for a picture, no secret
        return "tea"

    @tool
    def forecast(self) -> list[float]:
        """Take some seconds."""
        time.sleep(random.uniform(1, 4))  # noqa: S311 - a load for a picture, no secret
        return [1.0]
