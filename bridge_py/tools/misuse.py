"""Finds tools that are written in a way that cannot work.

An error at the worker's start names the tool and says what to do.
"""

from __future__ import annotations

import functools
import inspect
import logging
import typing
from collections import abc
from collections.abc import Callable, Iterable
from typing import Any, Final

from bridge_py.wire.errors import UsageError

from .context import AsyncSessionContext, SessionContext

MARK: Final = "__snakepit_tool__"
_CONTEXTS: Final = (SessionContext, AsyncSessionContext)
_SELVES: Final = ("self", "this", "cls", "me")

logger = logging.getLogger("snakepit.tool")


def check_markable(function: object) -> None:
    """Raise `UsageError` for an object that `@tool` cannot mark."""
    if isinstance(function, str):
        raise UsageError(f"@tool({function!r}) names nothing: write @tool(name={function!r})")
    is_method = callable(function) or isinstance(function, (staticmethod, classmethod))
    if not is_method or isinstance(function, type):
        raise UsageError(
            f"@tool marks methods, and {function!r:.100} is a {type(function).__name__}: put it above a method of the"
            " adapter"
        )


def is_unmarked(kind: type, base: type, name: str) -> bool:
    """Whether an adapter has a method of its own of this name that is no tool. `base` is `BaseAdapter`."""
    found = inspect.getattr_static(kind, name, None)
    is_method = inspect.isfunction(found) or isinstance(found, (staticmethod, classmethod))
    return is_method and not _is_marked(found) and not name.startswith("_") and not hasattr(base, name)


def offer(name: str, known: Iterable[str]) -> str:
    """Say which names come near to a name that does not exist, or else which there are."""
    import difflib  # only here: workers start sooner

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"there are: {', '.join(known) or 'none'}"


def check_adapter(kind: type, base: type) -> None:
    """Raise `UsageError` for the first tool of an adapter that is written wrongly. `base` is `BaseAdapter`."""
    found: dict[str, tuple[type, Any]] = {}
    for each in reversed(kind.__mro__):
        for name, value in vars(each).items():
            owner, before = found.get(name, (each, None))
            if _is_marked(before) and not _is_marked(value) and value is not None:
                raise UsageError(
                    f"{each.__qualname__}.{name} replaces the tool {name!r} of {owner.__qualname__} and has no @tool: "
                    f"add it, or write {name} = None to have no such tool"
                )
            found[name] = each, value
    _check_hooks(kind)
    for name, (owner, value) in found.items():
        if _is_marked(value):
            _check_tool(f"tool {name!r} of {owner.__qualname__}", name, value, vars(base))


def _check_hooks(kind: Any) -> None:
    for name in ("setup", "close", "session_ended"):
        hook = getattr(kind, name)
        if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
            raise UsageError(f"{kind.__qualname__}.{name} has a `yield`, so nothing would run it: remove that")
    if inspect.iscoroutinefunction(kind.session_ended):
        raise UsageError(f"{kind.__qualname__}.session_ended must not wait: write `def`, and no `async`")


def _is_marked(value: Any) -> bool:
    # A decorator around a marked function keeps the function in one of these attributes.
    inner = (getattr(value, name, None) for name in ("__func__", "fget", "func"))
    return any(getattr(each, MARK, None) is not None for each in (value, *inner))


def _check_tool(what: str, name: str, value: Any, taken: typing.Mapping[str, Any]) -> None:
    if name in taken:
        raise UsageError(
            f"{what} takes the place of BaseAdapter.{name}: give the method another name, and @tool(name={name!r}) if "
            "it is to be called so"
        )
    if isinstance(value, (staticmethod, classmethod, property, functools.cached_property)):
        raise UsageError(
            f"{what} is a {type(value).__name__}, and tools are plain methods: remove that decorator, and have `self` "
            "as the first parameter"
        )
    if inspect.isfunction(value):
        _check_self(what, value)
        hints = _hints_of(value)
        _check_contexts(what, value, hints)
        _check_kind(what, value, hints.get("return"))


def _check_self(what: str, function: Callable[..., Any]) -> None:
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is not None and (first.kind is first.VAR_POSITIONAL or first.name in _SELVES or first.name[0] == "_"):
        return
    there = "no parameter" if first is None else f"{first.name!r} as its first parameter"
    raise UsageError(f"{what} has {there}: a tool is a method, write `self` before the others")


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # reported when the tool's hints are read
        return {}


def _check_contexts(what: str, function: Callable[..., Any], hints: dict[str, Any]) -> None:
    """Check that at most one parameter is for the context, and that no union or the like hides it.

    Logs a warning for a parameter of a context's usual name that has no annotation, because its callers must give it.
    """
    contexts = [name for name, hint in hints.items() if name != "return" and hint in _CONTEXTS]
    if len(contexts) > 1:
        raise UsageError(f"{what} has two parameters for its context, {' and '.join(contexts)}: remove one")
    for name, hint in hints.items():
        if name != "return" and any(part in _CONTEXTS for part in typing.get_args(hint)):
            shown = inspect.formatannotation(hint)
            raise UsageError(f"{what}: {name} is {shown}: annotate the context alone, every call has one")
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("context", "ctx") and parameter.annotation is parameter.empty is parameter.default:
            logger.warning(
                "%s: its callers must give %r. If it is to be the call's context, annotate it with SessionContext",
                *(what, name),
            )


def _check_kind(what: str, function: Callable[..., Any], hint: Any) -> None:
    """Raise `UsageError` if a function lacks the `async` or `yield` that its return hint promises."""
    says = typing.get_origin(hint) or hint
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    missing = []
    if says in (abc.AsyncIterator, abc.AsyncGenerator, abc.Awaitable, abc.Coroutine) and not is_async:
        missing.append("async")
    if says in (abc.Iterator, abc.Generator, abc.AsyncIterator, abc.AsyncGenerator) and not yields:
        missing.append("yield")
    if missing:
        advice = {"async": "write `async def`", "yield": "`yield` its items, or say that it returns a list"}
        words = " and no ".join(f"`{each}`" for each in missing)
        raise UsageError(
            f"{what} says that it returns {inspect.formatannotation(hint)} and has no {words}: "
            + ", and ".join(advice[each] for each in missing)
        )
