"""Starts a kernel of Jupyter, and does with it what comes on standard input, a line of JSON each.

A process of its own, because Jupyter's client leaves an asyncio loop and a thread behind.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from jupyter_client.manager import start_new_kernel

LONGEST = 120  # seconds


def say(value: object) -> None:
    """Answer with a line of JSON."""
    print(json.dumps(value), flush=True)


class Cells:
    """Executes the cells of a notebook."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self.client = client
        self._found: list[str] = []
        self._interrupts = False

    def run(self, cell: str, interrupts: bool) -> str:
        """Execute a cell, and return what it prints, or its error. Interrupt it when it has printed something."""
        self._found, self._interrupts = [], interrupts
        self.client.execute_interactive(cell, timeout=LONGEST, output_hook=self._hear)
        return "".join(self._found)

    def _hear(self, message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "error":
            self._found.append(f"{content['ename']}: {content['evalue']}")
        elif message["msg_type"] == "stream":
            self._found.append(content["text"])
            if self._interrupts and content["text"].strip():
                self._interrupts = False
                self.manager.interrupt_kernel()

    def do(self, command: list[str]) -> object:
        """Do what a line says; returns the answer."""
        match command:
            case ["run", cell]:
                return self.run(cell, False)
            case ["interrupt", cell]:
                return self.run(cell, True)
            case ["begin", cell]:
                return self.client.execute(cell)
        self.manager.shutdown_kernel(now=True)
        return "killed"


def main() -> None:
    """Serve until standard input ends; then end the kernel in order."""
    manager, client = start_new_kernel(env=dict(os.environ))
    say(manager.provisioner.process.pid)  # type: ignore[union-attr] # the local provisioner has one
    cells = Cells(manager, client)
    try:
        for line in sys.stdin:
            say(cells.do(json.loads(line)))
    finally:
        client.stop_channels()
        if manager.is_alive():
            manager.shutdown_kernel()
        manager.cleanup_resources()


if __name__ == "__main__":
    main()
