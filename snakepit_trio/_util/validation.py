"""Validators of settings and similar arguments. Each error is one line, with the name of the setting and a remedy."""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

import attrs

from bridge_py.wire.errors import UsageError

#: An attrs validator: takes the instance, the attribute and the value.
Validator = Callable[[Any, Any, Any], None]

_LARGEST: Final = 2**63 - 1  # the largest number that the wire and the kernel can hold
_LONGEST: Final = 200  # characters of a value that are shown
_LONGEST_NAME: Final = 100
MOST_LEVEL: Final = 1_000  # of logging


def refuse(name: str, value: object, remedy: str) -> UsageError:
    """The error for an invalid setting. `remedy` is an imperative, such as "give seconds"."""
    try:
        shown = repr(value)
    except Exception as error:
        shown = f"<its repr() raised {type(error).__name__}>"
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}..."
    return UsageError(f"{name}={shown}: {remedy}")


def check_plain(name: str, function: object, remedy: str) -> None:
    """Raise `UsageError` for what cannot be called, and for a coroutine function: we call it, and do not await it."""
    if not callable(function):
        raise refuse(name, function, remedy)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise _not_awaited(name, function)


def check_answer(name: str, function: object, answer: object) -> None:
    """Raise `UsageError` if a function that `check_plain` has let pass has returned a coroutine. Closes it."""
    if inspect.iscoroutine(answer):
        answer.close()
        raise _not_awaited(name, function)


def _not_awaited(name: str, function: object) -> UsageError:
    return UsageError(
        f"{name}={function!r:.100} is a coroutine function, which nobody awaits; give a plain function, which may"
        " hand on what it gets by send_nowait of a memory channel, or by start_soon of a nursery"
    )


def check_whole(name: str, value: object, least: int, most: int | None = None, *, or_none: str = "") -> None:
    """Raise `UsageError` for anything but a whole number within bounds.

    `or_none` says what None means. If it is empty, None is refused too.
    """
    if value is None and or_none:
        return
    if is_whole(value) and most is None and value > _LARGEST:
        most = _LARGEST
    if not is_whole(value) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise refuse(name, value, f"give a whole number {bounds}{or_none and f', or None for {or_none}'}")


def check_seconds(name: str, value: object, *, or_zero: bool = False, or_none: str = "") -> None:
    """Raise `UsageError` for anything but a time in seconds. `or_none` is as for `check_whole`."""
    if value is None and or_none:
        return
    if not is_number(value) or not (value >= 0 if or_zero else value > 0):
        bounds = "0 or more" if or_zero else "more than 0"
        raise refuse(name, value, f"give seconds, {bounds}{or_none and f', or None for {or_none}'}")


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number. To Python a bool is one, but "workers=True" is a mistake."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that a float can hold."""
    if not is_whole(value) and not isinstance(value, float):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def whole(least: int, most: int | None = None, *, or_none: str = "") -> Validator:
    """The validator of a whole number within bounds."""
    return lambda _instance, field, value: check_whole(field.name, value, least, most, or_none=or_none)


def seconds(*, or_zero: bool = False, or_none: str = "") -> Validator:
    """The validator of a time in seconds."""
    return lambda _instance, field, value: check_seconds(field.name, value, or_zero=or_zero, or_none=or_none)


def instance(*kinds: type, remedy: str) -> Validator:
    """The validator of instances of some classes."""

    def check(_instance: object, field: Any, value: object) -> None:
        if not isinstance(value, kinds):
            raise refuse(field.name, value, remedy)

    return check


def one_of(choices: tuple[str, ...]) -> Validator:
    """The validator of one of several words."""

    def check(_instance: object, field: Any, value: object) -> None:
        if not isinstance(value, str) or value not in choices:
            raise refuse(field.name, value, f"give one of {', '.join(map(repr, choices))}")

    return check


def word(default: str, choices: tuple[str, ...]) -> Any:
    """The field of one of several words. It is `Any`, because type checkers take the default for any text."""
    return attrs.field(default=default, validator=one_of(choices))


def path(*, or_none: str = "") -> Validator:
    """The validator of the path of a file or folder."""

    def check(_instance: object, field: Any, value: object) -> None:
        if value is None and or_none:
            return
        if not isinstance(value, (str, os.PathLike)) or not is_text(plain := os.fspath(value)) or not plain:
            raise refuse(field.name, value, f"give a path{or_none and f', or None for {or_none}'}")

    return check


def text(*, or_none: str = "") -> Validator:
    """The validator of text that is passed to a program."""

    def check(_instance: object, field: Any, value: object) -> None:
        if not is_text(value) and not (value is None and or_none):
            raise refuse(field.name, value, f"give text, with no NUL{or_none and f', or None for {or_none}'}")

    return check


def name(_instance: object, field: Any, value: object) -> None:
    """The validator of a name that shows in process listings and log records."""
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NAME or not value.isprintable():
        raise refuse(field.name, value, f"give printable text, of at most {_LONGEST_NAME} characters")


def environment(_instance: object, field: Any, value: object) -> None:
    """The validator of environment variables by name, or None."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise refuse(field.name, value, "give a dict of texts by the names of variables")
    for key, content in value.items():
        if not is_text(key) or not key or "=" in key:
            raise refuse(field.name, {key: content}, "give names that are text, with no '=' and no NUL")
        if not isinstance(content, str):
            raise refuse(field.name, {key: content}, f"give text, such as {str(content)!r}")
        if not is_text(content):
            raise refuse(field.name, {key: content}, "give text with no NUL, that the file system's encoding can hold")


def to_level(level: object) -> Any:
    """The number of a level of logging that is given by its name. Anything else stays as it is, for a validator."""
    if not isinstance(level, str):
        return level
    known = {name: number for name, number in logging.getLevelNamesMapping().items() if number}
    if level.upper() not in known:
        raise refuse("log_level", level, f"give one of {', '.join(map(repr, known))}, or a number")
    return known[level.upper()]


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text that the kernel can take, as an argument or a path."""
    return isinstance(value, str) and "\0" not in value and _can(os.fsencode, value)


def is_utf8(value: object) -> TypeGuard[str]:
    """Whether a value is text that the wire can hold."""
    return isinstance(value, str) and _can(str.encode, value)


def _can(encode: Callable[[str], bytes], value: str) -> bool:
    try:
        encode(value)
    except UnicodeEncodeError:
        return False
    return True
