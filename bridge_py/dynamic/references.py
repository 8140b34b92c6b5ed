"""How stored objects are named in the arguments of dynamic calls, on both sides of the link.

A text of the form `"stored.name"`, or `"stored.name.attribute"`, stands for an object, wherever it is in the arguments.
A `RemoteRef` stands for an object too. A `Verbatim` stands for its own text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from bridge_py.wire.errors import InvalidCall
from bridge_py.wire.registry import register_codec

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_REFERENCE: Final = re.compile(r"stored(\.[A-Za-z_][A-Za-z0-9_]*)+")
PREFIX: Final = "stored."


class RemoteRef(msgspec.Struct, frozen=True):
    """A reference to an object that a worker keeps for a session. As an argument, it stands for the object itself.

    `type` is the object's class, `repr` the beginning of its repr, and `size` its estimated size in bytes, as they were
    when it was stored.
    """

    name: str
    type: str
    repr: str
    size: int
    session_id: str


class Verbatim(msgspec.Struct, frozen=True):
    """A text that stands only for itself, such as `Verbatim("stored.procedures")`."""

    text: str


class Pickled(msgspec.Struct, frozen=True):
    """An object as a pickle, which workers of trusted adapters write and read. The host only keeps it."""

    data: bytes


register_codec(RemoteRef, "snakepit.ref", msgspec.structs.astuple, lambda fields: RemoteRef(*fields))
register_codec(Verbatim, "snakepit.verbatim", lambda verbatim: verbatim.text, Verbatim)
register_codec(Pickled, "snakepit.pickled", lambda pickled: pickled.data, Pickled)


def check_name(name: object) -> str:
    """Check a name for a stored object, and return it. Raises `InvalidCall` if it is invalid."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidCall(
            f"{name!r:.200} cannot be the name of a stored object: give up to 100 letters, digits and _, a letter first"
        )
    return name


def is_reference(value: object) -> bool:
    """Whether a value stands for a stored object."""
    return isinstance(value, RemoteRef) or (isinstance(value, str) and _REFERENCE.fullmatch(value) is not None)


def references_in(value: Any) -> Iterator[str | RemoteRef]:
    """Yield the references to stored objects inside of a value."""
    if is_reference(value):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from references_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references_in(item)


def replace(value: Any, find: Callable[[str | RemoteRef], Any]) -> Any:
    """Replace each reference in a value by the object that `find` returns, and each `Verbatim` by its text."""
    if is_reference(value):
        return find(value)
    if isinstance(value, Verbatim):
        return value.text
    if type(value) is dict:
        return {key: replace(item, find) for key, item in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(replace(item, find) for item in value)
    return value
