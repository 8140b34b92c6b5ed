"""Runs functions that a host names by their module, beside the tools of the adapter.

A call of a function is a call of one of a few tools that each worker has. The host knows the function, and so it
chooses the tool: for a plain function, for a coroutine function, and for a generator of each kind, with pickles or
without. Callers of tools cannot reach these tools by their names: a host refuses the names from everybody but
`Pool.run` and its kin.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from bridge_py.wire import codec
from bridge_py.wire.errors import (
    CodecError,
    DecodeError,
    Fault,
    InvalidArguments,
    InvalidCall,
    UsageError,
    WrongCallKind,
)
from bridge_py.wire.specs import ITERATE, ITERATE_ASYNC, RUN, RUN_ASYNC, RUN_EACH, RUN_EACH_ASYNC

from .adapter import Tool
from .context import AsyncSessionContext, CallContext, SessionContext, enter
from .hints import has_marks, hints_of, plain, restored
from .pickling import OF_WORKER, PLAIN, Values
from .targets import attribute_of, module_of

__calls_tools__ = True  # tracebacks of functions leave out the outermost frames of this module

_NO_ARGUMENTS: Final[Mapping[str, Any]] = MappingProxyType({})
Target = str | Callable[..., Any]
_functions: dict[str, Function] = {}  # by target


class Function:
    """A function, and what its signature says about its arguments."""

    def __init__(self, target: str, call: Callable[..., Any]) -> None:
        self.call = call
        self.name = target
        self._hints: dict[str, Any] | None = None
        self._signature: inspect.Signature | None = None

    def restored(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Make the objects in arguments again, by the hints of their parameters. Raises `InvalidArguments`."""
        if not has_marks(args) and not has_marks(kwargs):
            return args, kwargs
        names = self._parameters()
        rest = next((name for name, kind in names.items() if kind is inspect.Parameter.VAR_POSITIONAL), "")
        others = next((name for name, kind in names.items() if kind is inspect.Parameter.VAR_KEYWORD), "")
        by_position = [
            name for name, kind in names.items()
            if kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]  # fmt: skip
        at = [*by_position, *[rest] * len(args)]
        return (
            [self._restored(value, name) for value, name in zip(args, at, strict=False)],
            {key: self._restored(value, key if key in names else others) for key, value in kwargs.items()},
        )

    def for_each(self, marked: bool) -> Callable[[Any], Any]:
        """Return what is to be called with each of several items, of which some have marks."""
        return (lambda item: self.call(*self.restored([item], _NO_ARGUMENTS)[0])) if marked else self.call

    def _parameters(self) -> dict[str, Any]:
        if self._hints is None:
            self._hints = hints_of(self.call)
            with contextlib.suppress(Exception):  # some functions in C have no signature
                self._signature = inspect.signature(self.call)
        if self._signature is None:
            return {}
        return {parameter.name: parameter.kind for parameter in self._signature.parameters.values()}

    def _restored(self, value: Any, parameter: str) -> Any:
        assert self._hints is not None
        if parameter not in self._hints:
            return plain(value) if has_marks(value) else value
        try:
            return restored(value, self._hints[parameter])
        except ValueError as error:
            raise InvalidArguments(
                f"{self.name}: the argument {parameter!r} does not fit its hint: {error}", parameter
            ) from None


def find(target: Target) -> Function:
    """Import the function that `package.module:name` or `path/to/file.py:name` names, once. Raises `InvalidCall`.

    What its module raises while it is imported comes out unchanged. A function that has come itself is taken as it is.
    """
    if not isinstance(target, str):
        return Function(getattr(target, "__qualname__", type(target).__qualname__), target)
    found = _functions.get(target)
    if found is None:
        found = _functions[target] = Function(target, _import(target))
    return found


def _import(target: str) -> Callable[..., Any]:
    place, _, name = target.rpartition(":")
    try:
        function = attribute_of(module_of(place, target), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise InvalidCall(
            f"{target}: the worker cannot import {error.name!r}: start the program by `python -m`, or add the folder of"
            " the module to PYTHONPATH"
        ) from None
    except UsageError as error:
        raise InvalidCall(str(error)) from None
    if not callable(function):
        from .start_errors import hidden  # only here: workers start sooner

        raise InvalidCall(f"{target}: the worker's {place} has no function {name!r}{hidden(place)}")
    return function  # type: ignore[no-any-return]  # it is called with what the host gives


def call_at_start(call: bytes) -> Any:
    """Make the call of a pool's initializer, and return what it returns: an awaitable of a coroutine function."""
    given, is_special = codec.decode_marked(call, unpickle=OF_WORKER.unpickle)
    found, args, kwargs = find(given["function"]), given["args"], given["kwargs"]
    if is_special:
        args, kwargs = found.restored(args, kwargs)
    return found.call(*args, **kwargs)


# `marked` says whether the arguments may have objects that are not made again yet. Pickles hold whole objects.


def _call(
    function: Target,
    values: Values,
    marked: bool,
    context: CallContext,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = _NO_ARGUMENTS,
) -> Any:
    found = find(function)
    if marked:
        args, kwargs = found.restored(args, kwargs)
    enter(context)
    try:
        return values.exact(found.call(*args, **kwargs))
    finally:
        enter(None)


async def _call_async(
    function: Target,
    values: Values,
    marked: bool,
    context: CallContext,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = _NO_ARGUMENTS,
) -> Any:
    found = find(function)
    if marked:
        args, kwargs = found.restored(args, kwargs)
    enter(context)  # of this task, which ends with the call
    return values.exact(await found.call(*args, **kwargs))


def _iterate(
    function: Target,
    values: Values,
    marked: bool,
    context: CallContext,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = _NO_ARGUMENTS,
) -> Iterator[Any]:
    found = find(function)
    if marked:
        args, kwargs = found.restored(args, kwargs)
    enter(context)  # a thread runs one call at a time, from its beginning to its end
    try:
        iterator = _iterator_of(found.call(*args, **kwargs), found.name)
        try:
            for value in iterator:
                yield values.exact(value)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
    finally:
        enter(None)


def _iterator_of(returned: Any, name: str) -> Any:
    try:
        return iter(returned)
    except TypeError:
        if hasattr(returned, "__iter__"):
            raise
        kind = type(returned).__name__
        raise WrongCallKind(f"{name} has returned {kind}, which nobody can iterate over: call it with run") from None


async def _iterate_async(
    function: Target,
    values: Values,
    marked: bool,
    context: CallContext,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = _NO_ARGUMENTS,
) -> AsyncIterator[Any]:
    found = find(function)
    if marked:
        args, kwargs = found.restored(args, kwargs)
    enter(context)
    iterator = aiter(found.call(*args, **kwargs))
    try:
        async for value in iterator:
            yield values.exact(value)
    finally:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()


class _Each:
    """The outcomes of a function for each of many items."""

    def __init__(self, ways: Values) -> None:
        self._ways = ways
        self.values: list[Any] = []
        self._errors: list[tuple[int, bytes]] = []

    def failed(self, error: Exception) -> None:
        """Note that the function has raised for the next item."""
        self._errors.append((len(self.values), codec.encode_plain(self._ways.fault(error))))
        self.values.append(None)

    def outcome(self) -> Any:
        """What is sent: the values, with None where the function has raised, and the errors by position."""
        return self._ways.exact({"values": self.values, "errors": self._errors})


def _call_each(function: Target, values: Values, marked: bool, context: CallContext, items: list[Any]) -> Any:
    found, each = find(function), _Each(values)
    call, append = found.for_each(marked), each.values.append
    enter(context)
    try:
        for item in items:
            try:
                append(call(item))
            except Exception as error:
                each.failed(error)
    finally:
        enter(None)
    return each.outcome()


async def _call_each_async(
    function: Target, values: Values, marked: bool, context: CallContext, items: list[Any]
) -> Any:
    found, each = find(function), _Each(values)
    call, append = found.for_each(marked), each.values.append
    enter(context)
    for item in items:
        try:
            append(await call(item))
        except Exception as error:
            each.failed(error)
    return each.outcome()


class _FunctionTool(Tool):
    """Calls a function: its arguments are checked by the function itself, not by hints."""

    def __init__(self, function: Callable[..., Any], name: str, values: Values) -> None:
        super().__init__(function, name + values.suffix)
        self._values = values
        self.takes_context = True
        self.context_class = AsyncSessionContext if self.is_async else SessionContext

    def fault(self, error: BaseException) -> Fault:
        return self._values.fault(error)

    def arguments(self, body: bytes, area: bytes | memoryview, context: CallContext | None) -> dict[str, Any]:
        try:
            given, is_special = codec.decode_marked(body, area, trusted=True, unpickle=self._values.unpickle)
        except CodecError:
            raise
        except DecodeError as error:
            raise InvalidArguments(f"the arguments cannot be read: {error}") from None
        given["values"] = self._values
        given["context"] = context
        given["marked"] = is_special and self._values is PLAIN
        return given  # type: ignore[no-any-return]  # the host sends a dict of these names


_TOOLS: Final[dict[str, Callable[..., Any]]] = {
    RUN: _call,
    RUN_ASYNC: _call_async,
    ITERATE: _iterate,
    ITERATE_ASYNC: _iterate_async,
    RUN_EACH: _call_each,
    RUN_EACH_ASYNC: _call_each_async,
}
TOOLS: Final = {
    name + values.suffix: _FunctionTool(function, name, values)
    for values in (PLAIN, OF_WORKER)
    for name, function in _TOOLS.items()
}
