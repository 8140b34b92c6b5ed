"""How a worker process is told what to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
from attrs import validators

import bridge_py
from bridge_py.adapter import unknown_tool


class Adapter(ABC):
    """Names the program that a worker runs, and may have a say in its calls."""

    #: What that program speaks: our own link, the wire contract over gRPC, or frames on stdin and stdout.
    protocol: ClassVar[Literal["link", "grpc", "stdio"]] = "link"

    @abstractmethod
    def executable_path(self, python: str) -> str:
        """The executable; `python` is the pool's interpreter."""

    @abstractmethod
    def script_path(self) -> str:
        """The script that the executable is given."""

    @abstractmethod
    def script_args(self) -> list[str]:
        """The arguments of the script; those of the protocol are added to them."""

    def supported_commands(self) -> Sequence[str] | None:
        """The tools that may be called, or None for all that its workers have."""
        return None

    def validate_command(self, name: str, args: Mapping[str, Any]) -> None:
        """Raise what the caller is to get if a tool may not be called so: before the call waits for a worker."""
        commands = self.supported_commands()
        if commands is not None and name not in commands:
            raise unknown_tool(name, commands)

    def prepare_args(self, name: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments to send in place of those that were given."""
        return args

    def process_response(self, name: str, response: Any) -> Any:
        """What the caller gets in place of a result. What it raises goes to the caller."""
        return response

    def command_timeout(self, name: str, args: Mapping[str, Any]) -> float | None:
        """The budget, in seconds, of a call that names none; None for the usual one."""
        return None


@attrs.frozen
class GrpcPython(Adapter):
    """Our own Python worker, with the adapter class that `target` names as `package.module:Class`."""

    target: str = attrs.field(validator=validators.instance_of(str))

    @target.validator
    def _check(self, _attribute: object, value: str) -> None:
        place, _, name = value.rpartition(":")
        if not place or not name:
            raise bridge_py.UsageError(f"adapter {value!r}: write it as 'package.module:Class'")

    def executable_path(self, python: str) -> str:
        """The pool's interpreter."""
        return python

    def script_path(self) -> str:
        """The worker's main module, by path: the interpreter need not have it installed."""
        return str(Path(bridge_py.__file__).with_name("__main__.py"))

    def script_args(self) -> list[str]:
        """Which adapter to load."""
        return ["--adapter", self.target]
