"""The tools of the examples: this module is imported in the workers."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from bridge_py import BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    """One instance lives in each worker process."""

    def setup(self) -> None:
        """Load models and open connections here: once for each process, before it takes calls."""
        self.factor = 2

    @tool
    def double(self, n: int) -> int:
        """Arguments are checked against these hints before the tool runs."""
        return self.factor * n

    @tool
    def train(self, epochs: int, rate: float = 0.5) -> Iterator[dict[str, float]]:
        """A generator is a stream."""
        loss = 1.0
        for epoch in range(epochs):
            loss *= rate
            yield {"epoch": epoch, "loss": loss}

    @tool
    def stubborn(self, seconds: float, context: SessionContext) -> None:
        """Blocks. A parameter with this hint gets what is known about the call."""
        context.logger.info("call %d sleeps for %s s", context.call_id, seconds)
        time.sleep(seconds)

    @tool
    def crash(self) -> None:
        """What a fault in C does to its process."""
        signal.raise_signal(signal.SIGSEGV)
