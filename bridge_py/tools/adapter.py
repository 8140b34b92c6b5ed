"""Adapters and tools. An adapter is a class; a pool can call its marked methods, the tools.

A tool's parameters, types, defaults and descriptions are read from its signature, hints and
docstring. msgspec decodes arguments into the hinted types before the tool runs.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar, get_args, overload
from weakref import WeakKeyDictionary, WeakSet

import msgspec

from bridge_py.wire import codec
from bridge_py.wire.amounts import plain, thousandths
from bridge_py.wire.errors import CodecError, DecodeError, Fault, InvalidArguments, UnknownTool, UsageError
from bridge_py.wire.raised import fault_with
from bridge_py.wire.specs import Cancel, ParameterSpec, ToolSpec

from .batches import alone, check_batch, item_hints
from .context import AsyncSessionContext, BlockedContext, CallContext, SessionContext
from .hints import Unenforceable, check_lists, convert, enforced, hook, optional
from .misuse import check_adapter, check_markable, is_unmarked, offer

F = TypeVar("F", bound=Callable[..., Any])
_INNER: Final = re.compile(r"- at `\$([^`]*)` - at `\$([^`]*)`")
_CANCEL_CHOICES: Final = get_args(Cancel)
_ASYNC_CANCEL_CHOICES: Final = ("interrupt", "kill")


class _Mark(msgspec.Struct):
    name: str | None
    description: str | None
    cancel: Cancel
    idempotent: bool
    timeout: float | None
    limit: int | None
    batch: int | None
    wait: float
    resources: Mapping[str, float]


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    cancel: Cancel = "interrupt",
    idempotent: bool = False,
    timeout: float | None = None,
    limit: int | None = None,
    batch: int | None = None,
    wait: float = 0.0,
    resources: Mapping[str, float] = MappingProxyType({}),
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    cancel: Cancel = "interrupt",
    idempotent: bool = False,
    timeout: float | None = None,
    limit: int | None = None,
    batch: int | None = None,
    wait: float = 0.0,
    resources: Mapping[str, float] = MappingProxyType({}),
) -> F | Callable[[F], F]:
    """Mark a method of an adapter as a tool.

    The method may be a plain function, a coroutine function, a generator or an async generator; the
    last two are streams. `name` defaults to the method's name, `description` to the first paragraph
    of its docstring.

    `cancel` says how a running call is stopped when its caller gives up:

    - `"interrupt"`: `ToolCancelled` is raised inside a sync tool; a coroutine or an async generator is
      cancelled at its await.
    - `"cooperative"`: nothing is raised. The tool, which must be sync, checks `SessionContext.cancelled`
      itself and returns or raises. A generator is closed at its `yield`.
    - `"kill"`: the tool's worker is killed and replaced at once, and all other calls that it runs end with it. Use it
      for tools that stay in C code for long, where waiting is of no use.

    If the code does not end within the pool's `cancel_grace` seconds, its worker is killed in any case. A call that
    has not started is simply withdrawn. `idempotent=True` says that a call may run again on another worker after a
    crash. `timeout`, in seconds, applies to calls that give no timeout.

    `limit` is how many calls of the tool run at once at most, in all workers of a pool together. Further ones wait in
    the pool's queue, and hold up no calls of other tools. None means that there is no limit.

    `batch` makes it a batch tool: up to `batch` calls, of any callers, run together in one call of the function. Each
    of its parameters gets a list with the argument of each caller, and is annotated `list[X]`. The function returns a
    list of the same length: a result for each caller, or an exception, which that caller gets. `wait`, in seconds, is
    how long the pool collects calls while it has a free worker; calls that wait for a worker are collected in any case.
    A batch takes one place of its worker and of each limit. A caller that gives up leaves its batch; when the last one
    has left, the function is stopped as `cancel` says.

    `resources` are amounts that a call needs of its worker while it runs, such as `{"gpu": 1}` or `{"gpu": 0.5}`:
    numbers from 0 on, with up to three decimals. The call waits in the pool's queue for a worker with enough left.

    An adapter raises `UsageError` when its worker starts, if one of its tools is marked with invalid options, or is
    written in a way that cannot work: without `self`, as a static method, or in place of a method of `BaseAdapter`.
    """

    def marked(function: F) -> F:
        check_markable(function)
        mark = _Mark(name, description, cancel, idempotent, timeout, limit, batch, wait, resources)
        function.__snakepit_tool__ = mark  # type: ignore[attr-defined]
        return function

    return marked if function is None else marked(function)


class BaseAdapter:
    """Base of all adapters. One instance is made in each worker process.

    Override `setup` and `close` for resources that belong to the process and not to a call. Both run on the
    worker's main thread, as sync tools do in a worker with one call at a time. They may be coroutine functions: these
    run on the event loop of coroutine tools.
    """

    #: Seconds for which the worker remembers a variable that a tool has read, unless the host says that it has changed.
    cache_ttl: float = 60.0
    #: Whether `context["x"] = value` is refused if there is no variable `x`.
    strict: bool = False

    def setup(self) -> Any:
        """Called once before the worker says that it is ready. If it raises, the start fails."""

    def close(self) -> Any:
        """Called once when the worker ends in an orderly way; not when it is killed."""

    def session_ended(self, session_id: str) -> None:
        """Let go of all that the adapter holds for a session, because the session has ended.

        Called if the host knows that this worker holds something of the session. It runs on the link's thread while
        tools run, so it must neither wait nor take long. If it raises, the worker ends.
        """

    def tools(self) -> dict[str, Tool]:
        """Find the tools of this adapter, by name. Raises `UsageError` if two share a name, or if one is wrong."""
        if type(self) not in _sound:
            check_adapter(type(self), BaseAdapter)
            _sound.add(type(self))
        tools: dict[str, Tool] = {}
        for attribute, marked in sorted(_attributes(type(self)).items()):
            if getattr(marked, "__snakepit_tool__", None) is None:
                continue
            found = _tool_of(marked, attribute, getattr(self, attribute))
            if found.name in tools:
                raise UsageError(
                    f"{type(self).__qualname__} has two tools of the name {found.name!r}: give one of them another, by"
                    " @tool(name=)"
                )
            tools[found.name] = found
        return tools


class Tool:
    """A callable, with all that is needed to call it from outside.

    A parameter annotated with `context_type`, by default one of the contexts of a worker's tools, gets the context.
    Callers cannot give it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        description: str | None = None,
        cancel: Cancel = "interrupt",
        idempotent: bool = False,
        *,
        timeout: float | None = None,
        limit: int | None = None,
        batch: int | None = None,
        wait: float = 0.0,
        resources: Mapping[str, float] = MappingProxyType({}),
        context_type: type | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.streaming = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        _check_cancel(name, cancel, self.is_async)
        _check_limit(name, limit)
        check_batch(name, batch, wait, streaming=self.streaming)
        self._is_batch = batch is not None
        #: Whether its function takes the arguments of one call, and returns one result.
        self.is_plain = not self.streaming
        #: Of a batch tool: the tool that runs the calls of a batch together. The tool itself runs one call.
        self.together: Tool | None = None
        self._context_types = (SessionContext, AsyncSessionContext) if context_type is None else (context_type,)
        self._context_parameter = ""
        #: Whether a parameter of it gets the context.
        self.takes_context = False
        self.context_class: type[CallContext] = CallContext
        #: Whether its last call took less than a millisecond.
        self.is_quick = False
        #: Whether it has a `**parameter`, so that it takes arguments of other names too.
        self.takes_any = False
        #: The hints that arguments are checked against, by parameter.
        self.hints: dict[str, Any] = {}
        self._makes_sets = False
        doc = inspect.getdoc(function) or ""
        parameters = self._read_signature(_parameter_docs(doc))
        description = description or doc.partition("\n\n")[0]
        needs = _needs(name, resources)
        self.spec = ToolSpec(
            name, description, parameters, self.streaming, cancel, idempotent, timeout, limit, resources=needs
        )
        self.spec.batch, self.spec.wait = batch, float(wait)

    def of(self, function: Callable[..., Any]) -> Tool:
        """Copy this tool with another function of the same signature."""
        tool = Tool.__new__(Tool)  # not `copy.copy`, which takes three times as long
        vars(tool).update(vars(self), function=function)
        if self._is_batch:
            tool.function = alone(self.name, function)
            tool.together = together = Tool.__new__(Tool)
            vars(together).update(vars(self), function=function, is_plain=False, together=None)
        return tool

    def _read_signature(self, docs: dict[str, str]) -> list[ParameterSpec]:
        hints = _hints_of(self.function, self.name)
        if self._is_batch:
            hints = item_hints(self.name, self.function, hints, self._context_types)
        fields: list[Any] = []
        specs = []
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self.takes_any = True
                self._rest = self._rest_hint(parameter.name, hints.get(parameter.name, Any))
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise UsageError(f"tool {self.name!r}: parameter {parameter} can be given by position only")
            elif (hint := hints.get(parameter.name)) in self._context_types:
                self._context_parameter = parameter.name
                self.takes_context = True
                self.context_class = self._context_class(hint)
            else:
                hint = _hint_of(parameter, hints)
                self.hints[parameter.name] = hint
                found = self._enforced(parameter.name, hint)
                fields.append(_field_of(parameter, found))
                specs.append(_spec_of(parameter, hints.get(parameter.name, Any), docs.get(parameter.name, "")))
        self._reserved = {self._context_parameter, _owner_name(self.function)}
        self._fields = frozenset(spec.name for spec in specs)
        self._optional = frozenset(spec.name for spec in specs if not spec.required)
        self._shape = self._shape_of(fields)
        return specs

    def _shape_of(self, fields: list[Any]) -> Any:
        name = f"{self.name}_arguments"
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=not self.takes_any)

    def _enforced(self, parameter: str, hint: Any, *, special: bool = False) -> Any:
        try:
            found, makes_sets = enforced(hint, special=special)
            self._makes_sets = self._makes_sets or makes_sets
            return found
        except Unenforceable as error:
            raise UsageError(
                f"tool {self.name!r}: the hint of parameter {parameter!r} cannot be enforced: {error}"
            ) from None

    def _rest_hint(self, parameter: str, hint: Any) -> Any:
        """Translate the hint of `**parameter`, plain and special; with `Unpack`, it is for all arguments as a dict."""
        self._unpacks = typing.get_origin(hint) is typing.Unpack
        hint = get_args(hint)[0] if self._unpacks else hint
        return [self._enforced(parameter, hint, special=special) for special in (False, True)]

    def _convert_rest(self, given: dict[str, Any], is_special: bool) -> dict[str, Any]:
        hint, found = self._rest[is_special], {}
        rest = {key: value for key, value in given.items() if key not in self._fields}
        for key in rest.keys() & self._reserved:
            raise InvalidArguments(f"{self.name}: there is no parameter {key!r}", key)
        if self._unpacks:
            return dict(convert(rest, hint))
        for key, value in rest.items():
            try:
                found[key] = convert(value, hint)
            except ValueError as error:
                raise InvalidArguments(f"{self.name}: the argument {key!r} does not fit: {error}", key) from None
        return found

    @functools.cached_property
    def _special_shape(self) -> Any:
        # It is made when it is first needed, because most tools never need it.
        fields: list[Any] = []
        for name, hint in self.hints.items():
            found = self._enforced(name, hint, special=True)
            fields.append((name, optional(found), msgspec.UNSET) if name in self._optional else (name, found))
        return self._shape_of(fields)

    def _context_class(self, hint: Any) -> Any:
        if hint is AsyncSessionContext and not self.is_async:
            raise UsageError(f"tool {self.name!r} is no coroutine: annotate SessionContext, not AsyncSessionContext")
        return BlockedContext if hint is SessionContext and self.is_async else hint

    def arguments(self, body: bytes, area: bytes | memoryview, context: CallContext | None) -> dict[str, Any]:
        """Decode the arguments of a call and `bind` them. Raises `InvalidArguments` and `CodecError`."""
        try:
            given, is_special = codec.decode_marked(body, area, trusted=True)
        except CodecError as error:
            raise CodecError(f"{self.name}: {error}") from None
        except DecodeError as error:
            raise InvalidArguments(f"{self.name}: the arguments cannot be read: {error}") from None
        return self.bind(given, context, is_special=is_special)

    def fault(self, error: BaseException) -> Fault:
        """Describe what the tool has raised, for the caller."""
        return fault_with(error)

    def bind(self, given: Any, context: object, *, is_special: bool = True) -> dict[str, Any]:
        """Check and convert arguments, and add the context. Raises `InvalidArguments`, which names the parameter.

        `is_special` is the second result of `codec.decode_marked`; False is faster.
        """
        try:
            if self._makes_sets:
                check_lists(given)
            converted: Any = msgspec.convert(given, self._special_shape if is_special else self._shape, dec_hook=hook)
            values = msgspec.structs.asdict(converted)
            if self._optional:
                values = {name: value for name, value in values.items() if value is not msgspec.UNSET}
            if self.takes_any:
                values.update(self._convert_rest(given, is_special))
        except InvalidArguments:
            raise
        except (msgspec.ValidationError, ValueError) as error:
            raise _explain(self.name, str(error), self.spec) from None
        except Exception as error:  # a class may raise anything when an object is made, or hashed
            raise InvalidArguments(f"{self.name}: the arguments do not fit: {type(error).__name__}: {error}") from None
        if self._context_parameter:
            values[self._context_parameter] = context
        return values


def _attributes(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        found.update(vars(base))
    return found


# Tests make thousands of workers in memory. Reading the signatures would take as long as the rest of such a worker.
_read: Final[WeakKeyDictionary[Any, Tool]] = WeakKeyDictionary()  # by marked function; bound to no adapter
_sound: Final[WeakSet[type]] = WeakSet()  # adapters that were checked


def _tool_of(marked: Any, attribute: str, function: Callable[..., Any]) -> Tool:
    mark: _Mark = marked.__snakepit_tool__
    name = mark.name or attribute
    known = _read.get(marked)
    if known is None or known.name != name:
        known = Tool(
            function,
            name,
            mark.description,
            mark.cancel,
            mark.idempotent,
            timeout=mark.timeout,
            limit=mark.limit,
            batch=mark.batch,
            wait=mark.wait,
            resources=mark.resources,
        )
        _read[marked] = known.of(unbound)
    return known.of(function)


def unbound() -> None:
    """Stand in for the function of a tool that is known by its signature only."""
    raise AssertionError("a tool of no adapter")


def unknown_tool(name: str, known: Iterable[str], adapter: type | None = None) -> UnknownTool:
    """Make the error for a tool that does not exist; its message lists similar names.

    `adapter` is the class that has no such tool, if it is known: the method may be there, and lack its mark.
    """
    if adapter is not None and is_unmarked(adapter, BaseAdapter, name):
        return UnknownTool(
            f"no tool {name!r}: {adapter.__qualname__}.{name} is there, but not marked: add @tool above it"
        )
    return UnknownTool(f"no tool {name!r}; {offer(name, known)}")


def _check_cancel(name: str, cancel: str, is_async: bool) -> None:
    choices = _ASYNC_CANCEL_CHOICES if is_async else _CANCEL_CHOICES
    if cancel not in choices:
        kind = "an async tool is cancelled at its awaits; " if is_async else ""
        raise UsageError(f"tool {name!r}: cancel={cancel!r} is invalid: {kind}give one of {', '.join(choices)}")


def _check_limit(name: str, limit: object) -> None:
    if limit is not None and (type(limit) is not int or not 1 <= limit < 1 << 63):
        raise UsageError(f"tool {name!r}: limit={limit!r:.100} is invalid: give a whole number of at least 1, or None")


def _needs(name: str, resources: object) -> dict[str, float]:
    try:
        return plain(thousandths(resources))
    except ValueError as error:
        raise UsageError(f"tool {name!r}: resources={resources!r:.200} is invalid: {error}") from None


def _hints_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise UsageError(f"tool {name!r}: its type hints cannot be resolved: {error}") from error


def _owner_name(function: Any) -> str:
    """Return the name of a method's first parameter, by convention "self"."""
    return next(iter(inspect.signature(function.__func__).parameters), "") if inspect.ismethod(function) else ""


def _hint_of(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    hint = hints.get(parameter.name, Any)
    return hint | None if parameter.default is None and hint is not Any else hint


def _field_of(parameter: inspect.Parameter, hint: Any) -> Any:
    if parameter.default is parameter.empty:
        return (parameter.name, hint)
    return (parameter.name, optional(hint), msgspec.UNSET)


def _spec_of(parameter: inspect.Parameter, hint: Any, description: str) -> ParameterSpec:
    type_name = inspect.formatannotation(hint).removeprefix("typing.")
    if parameter.default is parameter.empty:
        return ParameterSpec(parameter.name, type_name, description)
    return ParameterSpec(parameter.name, type_name, description, required=False, default=repr(parameter.default))


def _explain(name: str, message: str, spec: ToolSpec) -> InvalidArguments:
    while (merged := _INNER.sub(r"- at `$\2\1`", message, count=1)) != message:
        message = merged  # join msgspec's path of a part, and the path that a class of our own has found inside it
    inside = re.search(r"(?:at|in) `\$\.(\w+)", message)
    found = inside or re.search(r"field `([^`]+)`", message)
    parameter = found.group(1) if found else ""
    if not inside and message.startswith("Object missing required field"):
        text = f"{name}: the argument {parameter!r} is missing"
    elif not inside and message.startswith("Object contains unknown field"):
        there = ", ".join(each.name for each in spec.parameters) or "none"
        text = f"{name}: there is no parameter {parameter!r}; there are: {there}"
    else:
        text = (
            f"{name}: the argument {parameter!r} does not fit: {message.replace('`$.', '`').replace('`$`', 'its top')}"
        )
    return InvalidArguments(text, parameter)


def _parameter_docs(doc: str) -> dict[str, str]:
    """Descriptions of parameters in a docstring, in Google's (`name: text`) or Sphinx's (`:param name: text`) form."""
    docs = dict(re.findall(r"^:param (?:\w+ )?(\w+): *(.+)$", doc, re.MULTILINE))
    section = re.search(r"^(?:Args|Arguments|Parameters):\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    if section:
        lines = inspect.cleandoc("\n" + section.group(1))
        docs.update(re.findall(r"^\*{0,2}(\w+)(?: \([^)]*\))?: *(.+(?:\n[ \t]+.+)*)", lines, re.MULTILINE))
    return {name: " ".join(text.split()) for name, text in docs.items()}
