"""Functions that the application names by themselves: how a worker finds them, and how their outcomes come back."""

from __future__ import annotations

import inspect
import typing
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from bridge_py.tools.hints import hint_of_chunks, hints_of, restored
from bridge_py.tools.hints.own import of_parts
from bridge_py.tools.pickling import PLAIN, Values, exception_of
from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError, InvalidArguments, ToolError, UsageError, error_of
from bridge_py.wire.frames import Frame
from bridge_py.wire.raised import link, rebuild
from bridge_py.wire.specs import ITERATE, ITERATE_ASYNC, RUN, RUN_ASYNC, RUN_EACH, RUN_EACH_ASYNC
from snakepit_trio._config.targets import find_target, shown, target_of

_MARK: Final = "__snakepit_tool__"


class Function(NamedTuple):
    """A function of the application, or a tool of the adapter that is given by its method."""

    #: What errors and statistics call it: the name of the tool, or the function's module and name.
    name: str
    #: The tool that a worker runs.
    tool: str
    #: The hint of its result, or of its chunks.
    hint: Any
    #: The signature of a tool without `self`; None for a function.
    signature: inspect.Signature | None
    #: How its arguments, results and exceptions are sent and read.
    values: Values
    #: The function itself, if workers cannot import it, and a pickle of it is sent.
    itself: Any = None

    @property
    def called(self) -> str:
        """The full name of the worker's tool."""
        return self.tool + self.values.suffix

    def for_each(self) -> Function:
        """The same function, called by a worker for each of several items in one call. Raises `UsageError`."""
        if self.signature is not None:
            raise UsageError(f"chunksize= is for functions, and {self.name!r} is a tool: leave it out")
        return self._replace(tool=RUN_EACH_ASYNC if self.tool == RUN_ASYNC else RUN_EACH)

    def read(self, frame: Frame) -> Any:
        """Decode its result, or a chunk of it; of `for_each`, the results and errors."""
        each = self.tool in (RUN_EACH, RUN_EACH_ASYNC)
        return self._read_each(frame) if each else read(self.name, frame, self.hint, self.values)

    def _read_each(self, frame: Frame) -> tuple[list[Any], dict[int, Exception]]:
        """Decode the results of a function for several items, and its errors by position. Raises as `read` does."""
        found, is_special = codec.decode_marked(frame.body, frame.attached, unpickle=self.values.unpickle)
        if type(found) is not dict or type(values := found.get("values")) is not list:
            raise DecodeError("these are no results for several items")
        if is_special:
            values = _restored(self.name, values, of_parts(list, [self.hint]))
        if not (errors := found.get("errors")):
            return values, {}
        faults = msgspec.convert(errors, list[tuple[int, bytes]])
        return values, {at: self.as_raised(error_of(codec.decode_fault(fault))) for at, fault in faults}

    def as_raised(self, error: Exception) -> Exception:
        """What it has raised, if that can be made again here. The error that tells of it becomes its cause."""
        if not isinstance(error, ToolError):
            return error
        own = exception_of(error._pickled, self.values)
        if own is None and (not error._raised or (own := rebuild(error._raised)) is None):
            return error
        error.__cause__ = own.__cause__
        link(own, "__cause__", error)
        return own

    def arguments_for_each(self, items: Sequence[Any]) -> Any:
        """The arguments of the worker's tool that calls the function for each of several items."""
        return self.values.exact({"function": self._target, "items": list(items)})

    @property
    def _target(self) -> Any:
        return self.name if self.itself is None else self.itself

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The arguments of the worker's tool. Raises `InvalidArguments` if a tool does not take them."""
        if self.signature is None:
            given: dict[str, Any] = {"function": self._target}
            if args:
                given["args"] = list(args)
            if kwargs:
                given["kwargs"] = dict(kwargs)
            return self.values.exact(given)
        try:
            bound = self.signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{self.name}: {error}") from None
        rest = next((each.name for each in self.signature.parameters.values() if each.kind is each.VAR_KEYWORD), None)
        found = dict(bound.arguments)
        return found if rest is None else found | found.pop(rest, {})


_known: weakref.WeakKeyDictionary[Any, Function] = weakref.WeakKeyDictionary()


def function_of(function: Any, streams: bool, values: Values) -> Function:
    """Find out how workers find a function. `streams` says whether its values are to come one by one.

    Raises `UsageError` if workers cannot import it and `values` has no pickles, if it is no function, or if it streams
    and should not, or the other way round.
    """
    try:
        known = _known.get(function)
        if known is None:
            known = _read(function, values)
            if known.itself is None:  # it would never be forgotten
                _known[function] = known
    except TypeError:  # it has no weak references, or no hash
        known = _read(function, values)
    if known.values is not values and known.signature is None:
        known = known._replace(values=values)
    if streams and known.tool in (RUN, RUN_ASYNC):
        return _iterating(known, function)
    if not streams and known.tool in (ITERATE, ITERATE_ASYNC):
        raise UsageError(f"{known.name} yields its results one by one: use iterate in place of run")
    return known


def _iterating(known: Function, function: Any) -> Function:
    if known.tool == RUN_ASYNC:
        raise UsageError(f"{known.name} is a coroutine function, which yields nothing: use run in place of iterate")
    return known._replace(tool=ITERATE, hint=hint_of_chunks(hints_of(function).get("return", Any)))


def _read(function: Any, values: Values) -> Function:
    if isinstance(function, str) or not callable(function):
        raise UsageError(f"{function!r:.100} is no function; a tool is called by its name with execute or stream")
    mark = getattr(function, _MARK, None)
    hints = hints_of(function)
    if mark is not None:
        return _tool(function, mark.name or function.__name__, hints)
    name = target_of(function) if values is PLAIN else find_target(function)
    if name is None:
        return _whole(function)
    returned = hints.get("return", Any)
    if inspect.isasyncgenfunction(function):
        return Function(name, ITERATE_ASYNC, hint_of_chunks(returned), None, PLAIN)
    if inspect.isgeneratorfunction(function):
        return Function(name, ITERATE, hint_of_chunks(returned), None, PLAIN)
    if isinstance(function, type):
        returned = function
    return Function(name, RUN_ASYNC if inspect.iscoroutinefunction(function) else RUN, returned, None, PLAIN)


def _whole(function: Any) -> Function:
    """A function of which a pickle is sent."""
    called = function if inspect.isroutine(function) or isinstance(function, type) else type(function).__call__
    tool = RUN_ASYNC if inspect.iscoroutinefunction(called) else RUN
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        tool = ITERATE if inspect.isgeneratorfunction(called) else ITERATE_ASYNC
    return Function(shown(function), tool, Any, None, PLAIN, function)


def _tool(function: Any, name: str, hints: dict[str, Any]) -> Function:
    parameters = list(inspect.signature(function).parameters.values())
    if not inspect.ismethod(function):
        parameters = parameters[1:]  # its `self`
    streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    returned = hints.get("return", Any)
    if streams:
        returned = hint_of_chunks(returned)
    elif getattr(function, _MARK).batch is not None:  # each caller gets an item of the list
        returned = next(iter(typing.get_args(returned)), Any)
    return Function(name, name, returned, inspect.Signature(parameters), PLAIN)


def tool_name(function: Any) -> str | None:
    """The name of a tool that is given by its name or by its method; None for any other function."""
    mark = getattr(function, _MARK, None)
    return function if isinstance(function, str) else mark and (mark.name or function.__name__)


def read(name: str, frame: Frame, hint: Any, values: Values = PLAIN) -> Any:
    """Decode a result, or a chunk, with its objects as its hint names them. Raises `DecodeError` and `CodecError`."""
    value, is_special = codec.decode_marked(frame.body, frame.attached, unpickle=values.unpickle)
    return _restored(name, value, hint) if is_special else value


def _restored(name: str, value: Any, hint: Any) -> Any:
    try:
        return restored(value, hint)
    except ValueError as error:
        raise DecodeError(f"it does not fit the hint of what {name!r} returns: {error}") from None
