"""Adapters: they name the program that a worker process runs."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import attrs

import bridge_py
from bridge_py.tools.adapter import unknown_tool
from bridge_py.wire.environment import READY_VARIABLE
from bridge_py.wire.extras import install, is_installed
from snakepit_trio._util.validation import instance, is_text, refuse, text, word

_FOR_CALLS: Final = (
    "supported_commands",
    "validate_command",
    "prepare_args",
    "process_response",
    "command_timeout",
)

_TELEMETRY: Final = 'give True, False, or None for what the contract has: True for "0.13"'
LOG_LEVEL_VARIABLE: Final = "SNAKEPIT_LOG_LEVEL"
#: Environment variables of workers that follow the contract, unless the user has set them.
DEFAULT_VARIABLES: Final = {LOG_LEVEL_VARIABLE: "info", "SNAKEPIT_OTEL_CONSOLE": "false"}


class Adapter(ABC):
    """Names the program that a worker runs, and may check and change its calls and their results."""

    #: The protocol of that program: our own link, the contract over gRPC, or frames on stdin and stdout.
    protocol: ClassVar[Literal["link", "grpc", "stdio"]] = "link"

    @abstractmethod
    def executable_path(self, python: str) -> str:
        """The executable; `python` is the pool's interpreter."""

    @abstractmethod
    def script_path(self) -> str:
        """The script that the executable is given."""

    @abstractmethod
    def script_args(self) -> list[str]:
        """The arguments of the script. The arguments of the protocol are added to them."""

    @property
    def has_a_say(self) -> bool:
        """Whether it overrides any of the methods that are called for each call."""
        return any(getattr(type(self), name) is not getattr(Adapter, name) for name in _FOR_CALLS)

    def unavailable(self, python: str) -> str | None:
        """Why its workers cannot be started here, with `python` as the pool's interpreter; None if they can."""
        return missing_program(self.executable_path(python), "")

    def supported_commands(self) -> Sequence[str] | None:
        """The tools that may be called, or None for all that its workers have."""
        return None

    def validate_command(self, name: str, args: Mapping[str, Any]) -> None:
        """Raise the error that the caller gets if a tool may not be called with these arguments.

        This runs before the call waits for a worker.
        """
        commands = self.supported_commands()
        if commands is not None and name not in commands:
            raise unknown_tool(name, commands)

    def prepare_args(self, name: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments to send in place of those that were given."""
        return args

    def process_response(self, name: str, response: Any) -> Any:
        """The value that the caller gets in place of a result. If this raises, the caller gets the exception."""
        return response

    def command_timeout(self, name: str, args: Mapping[str, Any]) -> float | None:
        """The timeout, in seconds, of a call that names none; None for the usual timeout."""
        return None


def to_args(args: Iterable[str]) -> tuple[str, ...]:
    """The arguments of a program. Raises `UsageError` for anything but a list of texts."""
    is_list = isinstance(args, Iterable) and not isinstance(args, (str, bytes))
    if not is_list or not all(map(is_text, texts := tuple(args))):
        raise refuse("args", args, "give a list of texts, with no NUL")
    return texts


def to_script(script: str | os.PathLike[str]) -> str:
    """The absolute path of a program. Raises `UsageError` for anything but a path."""
    if not isinstance(script, (str, os.PathLike)) or not is_text(os.fspath(script)):
        raise refuse("script", script, "give a path")
    return os.path.abspath(script)


@attrs.frozen(kw_only=True)
class GrpcBridge(Adapter):
    """Any program that follows the contract, in any language (docs/contract.md).

    `script` is the path of the program. `args` are its further arguments, after the contract's own. `contract` says how
    the program tells that it is ready: "0.4" by a line on stdout, "0.13" by a file. `python` is the interpreter that
    runs the script, by default the pool's; with an empty text the script runs itself. `adapter` is passed on as
    `--adapter`. `allow_pickle` lets the program send arrays as pickles; only numbers are read from them.
    `large_values` says how arrays of more than 10,240 bytes go to a program that does not tell that it reads them in
    raw bytes: "json", or "pickle" for a pickle of plain lists, which Python workers of the Elixir system read.
    `telemetry` says whether the pool listens to the program's `StreamTelemetry`; by default it does with "0.13".

    A call is stopped by killing its worker, because the contract has no message that stops a call.
    """

    protocol = "grpc"

    script: str | os.PathLike[str] = attrs.field(converter=to_script)
    args: Sequence[str] = attrs.field(default=(), converter=to_args)
    contract: Literal["0.4", "0.13"] = word("0.4", ("0.4", "0.13"))
    python: str | None = attrs.field(default=None, validator=text(or_none="the pool's interpreter"))
    adapter: str = attrs.field(default="", validator=text())
    allow_pickle: bool = False
    large_values: Literal["json", "pickle"] = word("json", ("json", "pickle"))
    telemetry: bool | None = attrs.field(default=None, validator=instance(bool, type(None), remedy=_TELEMETRY))

    @property
    def has_telemetry(self) -> bool:
        """Whether the pool listens to the program's telemetry."""
        return self.contract == "0.13" if self.telemetry is None else self.telemetry

    def executable_path(self, python: str) -> str:
        """The program that runs the script; empty if the script runs itself."""
        return python if self.python is None else self.python

    def script_path(self) -> str:
        """The path of the script."""
        return str(self.script)

    def script_args(self) -> list[str]:
        """The arguments that follow after the contract's own."""
        return list(self.args)

    def command(self, python: str, address: str, run_id: str) -> list[str]:
        """The whole command. `address` is where the host listens."""
        runner = self.executable_path(python)
        return [
            *([runner] if runner else []),
            self.script_path(),
            *(["--adapter", self.adapter] if self.adapter else []),
            *("--elixir-address", address, "--port", "0", "--snakepit-run-id", run_id),
            *self.script_args(),
        ]

    def variables(self, ready_file: os.PathLike[str]) -> dict[str, str]:
        """Environment variables for the program."""
        if self.contract == "0.4":
            return {}
        return {
            READY_VARIABLE: os.fspath(ready_file),
            **DEFAULT_VARIABLES,
        }

    def unavailable(self, python: str) -> str | None:
        if not is_installed("betterproto2"):
            return f"the contract needs the package betterproto2: {install('grpc')}"
        return missing_program(self.executable_path(python), self.script_path())


def missing_program(runner: str, script: str) -> str | None:
    """Why a program cannot be run, or None. If `runner` is empty, the script runs itself."""
    if script and not os.path.exists(script):
        return f"there is no script {script!r}"
    if shutil.which(runner or script) is None:
        return f"there is no executable {runner or script!r} on the PATH"
    return None


def _check_target(_adapter: object, _attribute: object, value: str) -> None:
    place, _, name = value.rpartition(":") if is_text(value) else ("", "", "")
    if not place or not name:
        module, _, kind = value.rpartition(".") if is_text(value) and not value.endswith(".py") else ("", "", "")
        meant = f"{module}:{kind}" if module and kind[:1].isupper() else "package.module:Class"
        raise bridge_py.UsageError(f"adapter {value!r:.200}: write it as {meant!r}")


@attrs.frozen
class GrpcPython(Adapter):
    """Our own Python worker, with the adapter class that `target` names as `package.module:Class`."""

    target: str = attrs.field(validator=_check_target)
    #: The class itself, if it is known, for launchers that run it in this process.
    adapter_class: type[bridge_py.BaseAdapter] | None = attrs.field(default=None, repr=False, eq=False)

    def executable_path(self, python: str) -> str:
        """The pool's interpreter."""
        return python

    def script_path(self) -> str:
        """The worker's main module, by path. So the interpreter need not have it installed."""
        return str(Path(bridge_py.__file__).with_name("__main__.py"))

    def script_args(self) -> list[str]:
        """Which adapter to load."""
        return ["--adapter", self.target]


def what_to_give(wrong: object) -> str:
    """Say what to give in place of something that is no adapter."""
    if isinstance(wrong, bridge_py.BaseAdapter):
        name = type(wrong).__qualname__
        return f"this is an object: give the class, {name}. Each worker makes an object of its own, with options="
    if isinstance(wrong, type):
        return f"write `class {wrong.__name__}(bridge_py.BaseAdapter)`: an adapter derives from that"
    if callable(wrong):
        return "a pool runs functions without an adapter: `open_pool()`, and then `await pool.run(function)`"
    if isinstance(wrong, (list, tuple)):
        return "give one; adapters= takes several, and the first that works here is used"
    return "give 'package.module:Class', a class that derives from bridge_py.BaseAdapter, or a snakepit_trio.Adapter"
