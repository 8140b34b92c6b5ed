"""Says what to write in place of what nearly is a call of ours: names and arguments of other pools, and slips.

Nothing in here runs in a call that is right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bridge_py.tools.misuse import offer
from bridge_py.wire.errors import UsageError
from snakepit_trio._config.targets import shown

#: What stands for settings of other pools.
_SETTINGS: Final = {
    **dict.fromkeys(
        ("max_workers", "processes", "n_jobs", "num_workers", "num_processes", "size", "pool_size", "worker"),
        "give workers=, a number of processes",
    ),
    **dict.fromkeys(("timeout", "retries", "priority"), "it belongs to calls: pool.options({0}=...), or execute({0}=)"),
    **dict.fromkeys(("maxtasksperchild", "max_tasks_per_child"), "give recycle=RecyclePolicy(calls=...)"),
    **dict.fromkeys(("mp_context", "start_method"), "leave it out: workers are fresh processes, or template=True"),
}
_BLOCK: Final = "the pool ends with its block: leave that"
#: What stands for methods of other pools.
_METHODS: Final = {
    **dict.fromkeys(("submit", "apply", "apply_async", "spawn", "run_sync"), "await pool.run(function, ...)"),
    **dict.fromkeys(
        ("imap", "imap_unordered", "map_async", "starmap", "starmap_async"),
        "async with pool.map(function, items) as results",
    ),
    **dict.fromkeys(("call", "call_tool", "request"), "await pool.execute(name, {...})"),
    **dict.fromkeys(("close", "aclose", "shutdown", "terminate", "join", "stop"), _BLOCK),
}
#: What `run` and its kin leave to `options`.
OPTIONS: Final = frozenset({"timeout", "session", "retries", "priority", "on_progress"})


def unknown_setting(name: str, known: Iterable[str]) -> UsageError:
    """Make the error for a setting that `open_pool` does not have."""
    remedy = _SETTINGS.get(name)
    known = list(known)
    near = offer(name, known)
    if remedy is None:
        remedy = near if near.endswith("?") else f"the settings are: {', '.join(known)}"
    return UsageError(f"open_pool got an unexpected keyword argument {name!r}: {remedy.format(name)}")


def no_method(owner: object, name: str) -> AttributeError:
    """Make the error for an attribute that a pool does not have."""
    remedy = _METHODS.get(name)
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    return AttributeError(text if remedy is None else f"{text}: {remedy}", name=name, obj=owner)


def check_no_options(function: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise `UsageError` for options of a call among the arguments of a function that has no such parameters."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions in C have none
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    for name in sorted(OPTIONS.intersection(kwargs) - {each.name for each in parameters}):
        raise UsageError(
            f"{shown(function)} has no parameter {name!r}: an option of the call is given before it,"
            f" pool.options({name}=...).run({shown(function)}, ...)"
        )


def misused(method: Callable[..., Any], tool: object, more: tuple[Any, ...], unknown: Mapping[str, Any]) -> UsageError:
    """Make the error for a call of a tool with arguments that are no dict, or with an option that does not exist."""
    name = method.__name__
    example = f"{name}({tool!r:.100}, {{...}})"
    if more:
        return UsageError(f"{name} takes the arguments of a tool as one dict, by parameter name: {example}")
    wrong = next(iter(unknown))
    options = [each.name for each in inspect.signature(method).parameters.values() if each.kind is each.KEYWORD_ONLY]
    near = offer(wrong, options)
    if near.endswith("?"):
        return UsageError(f"{name} has no option {wrong!r}; {near}")
    return UsageError(
        f"{name} has no option {wrong!r}; an argument of the tool belongs in one dict: {example}. Options are"
        f" {', '.join(options)}"
    )
