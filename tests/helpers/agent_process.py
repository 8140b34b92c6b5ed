"""An agent as a process: it takes requests as lines of JSON on stdin, each in a thread, and answers on stdout.

It stands in for what a launcher for clusters starts on another machine. When stdin ends, it ends its worker.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import threading
from typing import Any

import attrs

from snakepit_trio.launchers.agent import WorkerAgent

_TURN = 0.5  # seconds that a request waits at a time


class Served:
    """One worker's agent, and who asks it."""

    def __init__(self, host: str) -> None:
        self._requests, self._answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self._lock = threading.Lock()
        self._order = pickle.loads(base64.b64decode(self._requests.readline()))
        self._host = host

    def run(self) -> None:
        """Serve until stdin ends."""
        try:
            self._agent = WorkerAgent(self._order, self._host)
        except OSError as error:
            self._answer(0, {"error": str(error)})
            return
        self._answer(0, {"pid": self._agent.pid, "address": self._agent.address})
        for line in self._requests:
            threading.Thread(target=self._handle, args=json.loads(line), daemon=True).start()
        self._agent.close()

    def _answer(self, number: int, content: Any) -> None:
        with self._lock:
            self._answers.write(json.dumps([number, content]) + "\n")
            self._answers.flush()

    def _handle(self, number: int, what: str, argument: Any) -> None:
        self._answer(number, getattr(self, f"_{what}")(argument))

    def _signal(self, number: int) -> None:
        self._agent.signal(number)

    def _look(self, _nothing: None) -> Any:
        return attrs.asdict(self._agent.look())

    def _wait(self, _nothing: None) -> Any:
        while (ended := self._agent.wait(_TURN)) is None:
            pass
        return attrs.asdict(ended)

    def _read(self, is_stderr: bool) -> str:
        while (data := self._agent.read_output(_TURN, is_stderr=is_stderr)) is None:
            pass
        return base64.b64encode(data).decode()


if __name__ == "__main__":
    Served(sys.argv[1]).run()
    os._exit(0)
