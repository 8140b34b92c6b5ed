"""What Ray makes an actor of: it stands beside one worker, on the node that Ray chooses."""

from __future__ import annotations

import importlib
import pickle
import threading
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from .agent import WorkerAgent

#: Calls that one actor runs at a time, in threads: some wait for the worker's end and its output, others must go on.
MOST_CALLS: Final = 16


class SnakepitWorker:
    """Has a `WorkerAgent`, whose methods it offers to Ray. All values are plain."""

    def __init__(self) -> None:
        self._agent: WorkerAgent | None = None
        self._starting = threading.Lock()
        self._is_closed = False

    def start(self, version: str, order: bytes) -> dict[str, Any]:
        """Start the worker of a pickled `Order`. Returns its `node`, `pid` and `address`; or, as an `error`, why not.

        `version` is the host's version of snakepit_trio, which the node must have too.
        """
        here = importlib.import_module("snakepit_trio").__version__
        if here != version:
            return {"error": f"its node has snakepit-trio {here}, and the host has {version}: install the same there"}
        ray: Any = importlib.import_module("ray")

        from .agent import WorkerAgent

        address = ray.util.get_node_ip_address()
        node = f"{address}/{ray.get_runtime_context().get_node_id()[:12]}"
        with self._starting:
            if self._is_closed:
                return {"error": "it was ended before it has started"}
            try:
                agent = self._agent = WorkerAgent(pickle.loads(order), address)  # noqa: S301 - the host's own
            except OSError as error:
                return {"error": f"node {node}: {error}"}
        return {"node": node, "pid": agent.pid, "address": agent.address}

    def signal(self, number: int) -> None:
        """Send a signal to the worker."""
        self._started().signal(number)

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """Wait for the end of the worker: its `Ended`, or None if it lives on."""
        ended = self._started().wait(seconds)
        return None if ended is None else attrs.asdict(ended)

    def look(self) -> dict[str, Any]:
        """Look at the worker: a `Look`."""
        return attrs.asdict(self._started().look())

    def read_output(self, seconds: float, is_stderr: bool) -> bytes | None:
        """What the worker has printed next: empty at the end, None if nothing comes in time."""
        return self._started().read_output(seconds, is_stderr=is_stderr)

    def close(self) -> None:
        """End the worker, and all that it has started."""
        with self._starting:
            self._is_closed = True
            if self._agent is not None:
                self._agent.close()

    def _started(self) -> WorkerAgent:
        assert self._agent is not None
        return self._agent
