"""How a worker process is told what to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import attrs
from attrs import validators

import bridge_py


class Adapter(ABC):
    """Names the program that a worker runs."""

    @abstractmethod
    def executable_path(self, python: str) -> str:
        """The executable; `python` is the pool's interpreter."""

    @abstractmethod
    def script_path(self) -> str:
        """The script that the executable is given."""

    @abstractmethod
    def script_args(self) -> list[str]:
        """The arguments of the script; those of the link are added to them."""


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
