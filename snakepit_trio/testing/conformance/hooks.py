"""Rules of adapters: what a pool asks of the adapter itself, in the host."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Final

from bridge_py.wire.errors import UnknownTool
from snakepit_trio._config.adapters import Adapter

from .adapters import Adapters
from .check import LeftOut, Rules, equal, raises, that

rules: Rules[Adapters] = Rules()

_NO_SUCH: Final = "no_such_tool_of_the_contract"


@rules
def it_names_a_program(given: Adapters) -> None:
    """`executable_path` and `script_path` are texts, one or both not empty. `script_args` is a list of texts."""
    adapter = given.adapter
    paths = adapter.executable_path(given.python), adapter.script_path()
    that(all(isinstance(path, str) for path in paths), f"executable_path and script_path: expected texts, not {paths}")
    that(any(paths), "executable_path and script_path: expected that one of them names a program, but both are empty")
    args = adapter.script_args()
    that(
        isinstance(args, list) and all(isinstance(arg, str) for arg in args),
        f"script_args: expected a list of texts, but {args!r} came",
    )


@rules
def it_is_available_here(given: Adapters) -> None:
    """`unavailable` is None if the workers can be started, and a reason if their interpreter does not exist."""
    equal(given.adapter.unavailable(given.python), None, "unavailable, where the checks are to run")
    reason = given.adapter.unavailable("/no/such/interpreter")
    uses_it = given.adapter.executable_path("/no/such/interpreter") == "/no/such/interpreter"
    if uses_it:
        that(
            isinstance(reason, str) and reason != "",
            f"unavailable, with an interpreter that is not there: expected a reason, but {reason!r} came",
        )


@rules
def supported_commands_are_names(given: Adapters) -> None:
    """`supported_commands` is None, or a sequence of names without doubles that has all given calls."""
    commands = given.adapter.supported_commands()
    if commands is None:
        return
    that(
        not isinstance(commands, str) and all(isinstance(name, str) and name for name in commands),
        f"supported_commands: expected names, but {commands!r} came",
    )
    equal(sorted(set(commands)), sorted(commands), "supported_commands, without doubles")
    missing = sorted({call.name for call in (*given.calls, *given.streams)} - set(commands))
    that(not missing, f"supported_commands: expected that the given calls are in it, but {missing} are not")


@rules
def what_is_not_supported_is_refused(given: Adapters) -> None:
    """For a tool that is not in `supported_commands`, `validate_command` raises `UnknownTool`, which names the tool."""
    if given.adapter.supported_commands() is None:
        raise LeftOut("its supported_commands is None: its workers know what they have")
    with raises(UnknownTool, "validate_command of a tool that is not supported", _NO_SUCH):
        given.adapter.validate_command(_NO_SUCH, {})


@rules
def validate_command_accepts_what_is_right(given: Adapters) -> None:
    """`validate_command` raises nothing for the given calls, and does not change their arguments."""
    for call in (*given.calls, *given.streams):
        args = copy.deepcopy(dict(call.args))
        try:
            given.adapter.validate_command(call.name, args)
        except Exception as error:
            raise AssertionError(f"validate_command of {call}: expected no error, but {error!r} came") from error
        equal(args, dict(call.args), f"the arguments of {call}, after validate_command")


@rules
def prepare_args_gives_arguments(given: Adapters) -> None:
    """`prepare_args` returns a mapping with texts as keys, and does not change the arguments that it was given."""
    for call in (*given.calls, *given.streams):
        args = copy.deepcopy(dict(call.args))
        prepared = given.adapter.prepare_args(call.name, args)
        that(
            isinstance(prepared, Mapping) and all(isinstance(key, str) for key in prepared),
            f"prepare_args of {call}: expected a mapping by parameter names, but {prepared!r} came",
        )
        equal(args, dict(call.args), f"the arguments of {call}, after prepare_args")


@rules
async def prepare_args_drops_none_that_the_worker_needs(given: Adapters) -> None:
    """Whatever `prepare_args` does with arguments, it loses no required parameter of a described tool."""
    if not given.overrides("prepare_args"):
        raise LeftOut("it has no prepare_args of its own")
    async with given.pool() as pool:
        specs = {tool.name: tool.spec for tool in pool.tools.list_tools()}
    for call in (*given.calls, *given.streams):
        spec = specs.get(call.name)
        required = [each.name for each in spec.parameters if each.required] if spec is not None else []
        sent = given.adapter.prepare_args(call.name, dict(call.args))
        lost = [name for name in required if name in call.args and name not in sent]
        that(not lost, f"prepare_args of {call}: expected that it keeps what the tool requires, but {lost} are lost")


@rules
def command_timeout_is_seconds(given: Adapters) -> None:
    """`command_timeout` is None, or a number of seconds that is not negative."""
    for call in (*given.calls, *given.streams):
        seconds = given.adapter.command_timeout(call.name, dict(call.args))
        that(_are_seconds(seconds), f"command_timeout of {call}: expected None or seconds, but {seconds!r} came")


@rules
def hooks_that_are_there_are_asked(given: Adapters) -> None:
    """`has_a_say` is true for an adapter that overrides a hook for calls. If it were false, no hook would be called."""
    names = ("supported_commands", "validate_command", "prepare_args", "process_response", "command_timeout")
    overridden = [name for name in names if given.overrides(name)]
    equal(
        given.adapter.has_a_say, bool(overridden), f"has_a_say of an adapter that overrides {overridden or 'nothing'}"
    )


@rules
async def process_response_gives_what_is_expected(given: Adapters) -> None:
    """`process_response` makes the results that the given calls expect of the worker's answers."""
    if not given.overrides("process_response"):
        raise LeftOut("it has no process_response of its own")
    seen: list[Any] = []
    async with given.pool(adapter=_recording(given.adapter, seen)) as pool:
        for call in given.calls:
            came = await pool.execute(call.name, call.args)
            call.check(came, f"{call}, to which the worker answered {seen[-1]!r:.200} before process_response")


def _recording(adapter: Adapter, seen: list[Any]) -> Adapter:
    """A copy of the adapter that notes each answer before its own `process_response` gets it."""
    own: Any = type(adapter)

    class Recording(own):  # type: ignore[misc]  # its base is known at run time
        __slots__ = ()

        def process_response(self, name: str, response: Any) -> Any:
            seen.append(copy.deepcopy(response))
            return own.process_response(self, name, response)

    recording = copy.copy(adapter)
    object.__setattr__(recording, "__class__", Recording)  # its fields may be frozen
    return recording


def _are_seconds(value: Any) -> bool:
    return value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value) and value >= 0
    )
