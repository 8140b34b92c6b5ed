"""Adapters that tests of DSPy programs use."""

from __future__ import annotations

from typing import Any

from bridge_py import tool
from bridge_py.adapters.python_calls import PythonCalls


class Looking(PythonCalls):
    """Tells what it keeps."""

    @tool
    def kept(self) -> int:
        """Sessions for which something of DSPy is kept."""
        return len(self.dspy_programs)


class OwnPrograms(PythonCalls):
    """Has programs of its own, not of DSPy."""

    def __init__(self) -> None:
        super().__init__()
        self.built: dict[str, str] = {}

    @tool
    def create_program(self, signature: str) -> dict[str, Any]:
        """Make one."""
        self.built["p1"] = signature
        return {"program_id": "p1", "kind": "own", "signature": signature}

    @tool
    def execute_program(self, program_id: str, program: dict[str, Any], input: int) -> dict[str, Any]:
        """Run one; it is built again if it is not here."""
        is_new = program_id not in self.built
        signature = self.built.setdefault(program_id, program["signature"])
        runs = program.get("runs", 0) + 1
        return {"output": f"{signature}: {2 * input}", "rebuilt": is_new, "program": {"runs": runs}}
