"""Batch tools: functions that run the calls of several callers at once. They get lists, and return a list."""

from __future__ import annotations

import inspect
import typing
from collections import abc
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge_py.wire.errors import UsageError
from bridge_py.wire.specs import LONGEST_WAIT, MOST_CALLS

__calls_tools__ = True  # tracebacks of tools leave out the outermost frames of this module

_LISTS: Final = (list, abc.Sequence)


def check_batch(name: str, batch: object, wait: object, *, streaming: bool) -> None:
    """Raise `UsageError` if a tool cannot have this `batch` and this `wait`."""
    is_number = isinstance(wait, (int, float)) and not isinstance(wait, bool)
    if not is_number or not 0 <= wait <= LONGEST_WAIT:  # type: ignore[operator]  # it is a number
        raise UsageError(f"tool {name!r}: wait={wait!r:.100} is invalid: give seconds from 0 to {LONGEST_WAIT:g}")
    if batch is None:
        if wait:
            raise UsageError(f"tool {name!r}: wait={wait!r} is for batches: give batch= too")
    elif type(batch) is not int or not 1 <= batch <= MOST_CALLS:
        raise UsageError(
            f"tool {name!r}: batch={batch!r:.100} is invalid: give a whole number from 1 to {MOST_CALLS}, or None"
        )
    elif streaming:
        raise UsageError(f"tool {name!r} is a stream, which cannot be a batch tool: return a list, or leave out batch=")


def item_hints(name: str, function: Callable[..., Any], hints: Mapping[str, Any], contexts: tuple[type, ...]) -> Any:
    """Find the hint of each caller's arguments: the items of the lists that a batch tool takes. Raises `UsageError`."""
    found = {}
    parameters = inspect.signature(function).parameters.values()
    if not parameters:
        raise UsageError(f"tool {name!r}: a batch tool needs a parameter, which gets a list: add one")
    for parameter in parameters:
        hint = hints.get(parameter.name, list)
        if hint in contexts:
            raise UsageError(
                f"tool {name!r}: a batch is of several callers, and has no context: leave out {parameter.name!r}, or"
                " leave out batch="
            )
        if parameter.kind is parameter.VAR_KEYWORD or parameter.default is not parameter.empty:
            raise UsageError(
                f"tool {name!r}: parameter {str(parameter)!r} of a batch tool must be one list, without a default"
            )
        found[parameter.name] = _item_hint(name, parameter.name, hint)
    return found


def _item_hint(name: str, parameter: str, hint: Any) -> Any:
    if hint is Any or hint in _LISTS:
        return Any
    if typing.get_origin(hint) not in _LISTS:
        text = inspect.formatannotation(hint)
        raise UsageError(
            f"tool {name!r}: parameter {parameter!r} of a batch tool gets a list with the argument of each caller:"
            f" annotate list[{text}], not {text}"
        )
    return typing.get_args(hint)[0]


def outcomes(name: str, returned: Any, count: int) -> list[Any]:
    """Check what a batch tool has returned for `count` calls: a result, or an exception, for each.

    Raises `TypeError` or `ValueError`, which every caller of the batch gets.
    """
    if not isinstance(returned, list):
        raise TypeError(
            f"the batch tool {name!r} returned a {type(returned).__name__}: return a list, with a result or an"
            " exception for each call"
        )
    if len(returned) != count:
        raise ValueError(
            f"the batch tool {name!r} returned {len(returned)} results for {count} calls: return one for each, in"
            " their order"
        )
    return returned


def alone(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function that runs one call of a batch tool as a batch of its own."""
    if inspect.iscoroutinefunction(function):

        async def run_alone(**arguments: Any) -> Any:
            return _only(name, await function(**{key: [value] for key, value in arguments.items()}))

        return run_alone
    return lambda **arguments: _only(name, function(**{key: [value] for key, value in arguments.items()}))


def _only(name: str, returned: Any) -> Any:
    (outcome,) = outcomes(name, returned, 1)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
