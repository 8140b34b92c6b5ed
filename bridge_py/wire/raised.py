"""How an exception of user code crosses the wire, so that it can be raised there as what it is.

The receiver makes an exception only of a class that it has loaded itself: it imports nothing, and runs no `__init__`
that is written in Python. Where that does not do, the exception stays a `ToolError`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from types import MemberDescriptorType, ModuleType
from typing import Any, Final, TypeGuard

import msgspec

from . import codec
from .environment import SCRIPT_MODULE
from .errors import DecodeError, Fault, fault_of
from .readable import readable

_NOWHERE: Final = 1 << 62
MOST_BYTES: Final = 256 << 10  # of all arguments of an exception, and of those that belong to it
_MOST_LINKS: Final = 16  # causes and members of groups, one below the other
_OUR_PACKAGES: Final = ("bridge_py", "snakepit_trio")
# A coroutine cannot raise these.
_NEVER: Final = (StopIteration, StopAsyncIteration)
# Attributes of builtin exceptions that their arguments do not have. The `obj` of an AttributeError can be anything.
_NAMED: Final[dict[type, tuple[str, ...]]] = {
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}
# Nothing in an exception's dict may hide these.
_OWN: Final = frozenset({*dir(BaseExceptionGroup), "__notes__"})


class Raised(msgspec.Struct, omit_defaults=True):
    """An exception: its class, what it is made of, and the exceptions that belong to it."""

    module: str
    name: str
    #: Its arguments and its attributes, encoded; empty if they cannot be sent.
    args: bytes = b""
    state: bytes = b""
    notes: list[str] = []
    cause: Raised | None = None
    context: Raised | None = None
    suppresses: bool = False
    members: list[Raised] = []


class _Described(Exception):
    """An exception cannot be described."""


def fault_with(error: BaseException) -> Fault:
    """Describe an exception for the peer. One of user code is added as such, so that the peer can make it again."""
    fault = fault_of(error)
    if fault.code == "tool":
        fault.raised = describe(error)
    return fault


def describe(error: BaseException) -> bytes:
    """Describe an exception of user code; empty bytes if it cannot be sent."""
    try:
        found = msgspec.msgpack.encode(_describe(error, _MOST_LINKS, set()))
    except Exception:
        return b""
    return found if len(found) <= MOST_BYTES else b""


def _describe(error: BaseException, links: int, above: set[int]) -> Raised:
    kind = type(error)
    if not links or id(error) in above:
        raise _Described
    above = {*above, id(error)}
    args, state = made_of(error)
    group = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    members = [_describe(each, links - 1, above) for each in group]
    return Raised(
        kind.__module__,
        kind.__qualname__,
        _encode(args),
        _encode(state) if state else b"",
        [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)],
        _linked(error.__cause__, links, above),
        _linked(error.__context__, links, above),
        error.__suppress_context__,
        members,
    )


def _linked(error: BaseException | None, links: int, above: set[int]) -> Raised | None:
    try:
        return None if error is None else _describe(error, links - 1, above)
    except Exception:
        return None  # the exception itself is worth more than its cause


def made_of(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an exception, and its attributes. Some builtin ones know of arguments that `args` lacks."""
    args: Any = error.args
    if not any("__reduce__" in vars(base) for base in _written_in_python(type(error))):
        reduced = error.__reduce__()
        if isinstance(reduced, tuple) and reduced[0] is type(error):
            args = reduced[1]
    if isinstance(error, BaseExceptionGroup):
        args = args[:1]
    state = {name: value for name, value in vars(error).items() if name != "__notes__"}
    for name, member in _members(type(error)).items():
        with contextlib.suppress(AttributeError):  # a slot that is not set
            state[name] = member.__get__(error)
    return tuple(args), state


def _members(kind: type) -> dict[str, MemberDescriptorType]:
    """The attributes of an exception that are neither its arguments nor in its dict."""
    known = [(base, _NAMED[base]) for base in kind.__mro__ if base in _NAMED]
    slots = [(base, tuple(vars(base))) for base in _written_in_python(kind)]
    found = {name: vars(base)[name] for base, names in [*known, *slots] for name in names}
    return {name: member for name, member in found.items() if isinstance(member, MemberDescriptorType)}


def _encode(value: Any) -> bytes:
    encoded = codec.encode(codec.Exact(value), beside=_NOWHERE)
    _, is_special = codec.decode_marked(encoded.body)
    if is_special:
        raise _Described  # without a hint, nobody could make its enums and objects again
    return encoded.body


def rebuild(description: bytes) -> Exception | None:
    """Make an exception again. Returns None if this process has not loaded its class, or cannot make it.

    The exceptions that belong to it are left out if they cannot be made. The members of a group all must be.
    """
    try:
        raised = msgspec.msgpack.decode(description, type=Raised)
        found = _rebuild(raised) if _is_within(raised, _MOST_LINKS) else None
    except Exception:
        return None
    return found if can_be_raised(found) else None


def _is_within(raised: Raised, links: int) -> bool:
    """Whether no more exceptions are one below the other than `describe` sends."""
    below = (raised.cause, raised.context, *raised.members)
    return links > 0 and all(each is None or _is_within(each, links - 1) for each in below)


def _rebuild(raised: Raised) -> BaseException:
    kind: Any = _loaded(raised)
    args: Any = _decode(raised.args, ())
    if issubclass(kind, BaseExceptionGroup):
        args = (*args, [_rebuild(member) for member in raised.members])
    error = made_again(kind, args)
    state = _decode(raised.state, {})
    if any(type(name) is not str or name in _OWN for name in state):
        raise DecodeError("it would hide what belongs to every exception")
    chain = _linked_again(raised.cause), _linked_again(raised.context), raised.suppresses
    complete(error, state, list(map(readable, raised.notes)), chain)
    return error


def made_again(kind: Any, args: tuple[Any, ...]) -> BaseException:
    """Make an exception of the arguments of `made_of`, without an `__init__` that is written in Python."""
    error: BaseException = kind.__new__(kind, *args)
    made_by = next(base for base in kind.__mro__ if "__init__" in vars(base) and base not in _written_in_python(kind))
    made_by.__init__(error, *args)
    return error


def complete(
    error: BaseException, state: dict[str, Any], notes: list[str], chain: tuple[Any, Any, bool] | None = None
) -> None:
    """Give an exception its attributes again, its notes, and its cause, its context and whether that is suppressed."""
    for name, member in _members(type(error)).items():
        if name in state:
            member.__set__(error, state.pop(name))
    object.__getattribute__(error, "__dict__").update(state | ({"__notes__": notes} if notes else {}))
    for name, value in zip(("__cause__", "__context__", "__suppress_context__"), chain or (), strict=False):
        link(error, name, value)


def link(error: BaseException, name: str, value: object) -> None:
    """Set `__cause__` or its like, also where the class of the exception lets nobody set attributes."""
    object.__setattr__(error, name, value)


def is_made_again(kind: type[BaseException]) -> bool:
    """Whether `made_again` makes exceptions of a class. Others are made, or pickled, in a way of their own."""
    own = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    return not any(name in vars(base) for base in _written_in_python(kind) for name in own)


def is_ours(kind: type[BaseException]) -> bool:
    """Whether an exception of this class would look like an error of the pool itself."""
    return kind.__module__.partition(".")[0] in _OUR_PACKAGES


def can_be_raised(error: object) -> TypeGuard[Exception]:
    """Whether a caller may get that as what a function has raised."""
    kind = type(error)  # `isinstance` would ask the exception for its class
    return issubclass(kind, Exception) and not issubclass(kind, _NEVER)


def _linked_again(raised: Raised | None) -> BaseException | None:
    try:
        return None if raised is None else _rebuild(raised)
    except Exception:
        return None


def _decode(data: bytes, default: Any) -> Any:
    return codec.decode(data) if data else default


def _loaded(raised: Raised) -> type[BaseException]:
    """The class of an exception, if this process has it."""
    found: Any = _module(raised.module)
    for part in raised.name.split("."):
        found = _names_in(found).get(part)
    if not (issubclass(type(found), type) and issubclass(found, BaseException)):
        raise DecodeError(f"there is no exception {raised.module}.{raised.name}")
    if is_ours(found):
        raise DecodeError("it would look like an error of the pool itself")
    if any("__new__" in vars(base) for base in _written_in_python(found)):
        raise DecodeError("its class makes its objects in a way of its own")
    return found  # type: ignore[no-any-return]  # it was checked without `isinstance`, which could run code


def _names_in(place: Any) -> Mapping[str, Any]:
    """What a module or a class has. Asking it for an attribute could run code: some modules import others then."""
    if issubclass(type(place), type):
        found: Mapping[str, Any] = type.__dict__["__dict__"].__get__(place)
        return found
    return object.__getattribute__(place, "__dict__") if issubclass(type(place), ModuleType) else {}


def _module(name: str) -> Any:
    """A module that is loaded. The main program has another name in its workers."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if name.startswith(SCRIPT_MODULE) or (spec is not None and spec.name == name):
        return main
    return sys.modules.get(name)


def _written_in_python(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__flags__ & (1 << 9)]
