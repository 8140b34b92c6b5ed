"""What a caller may ask for. All that goes onto the wire beside the arguments is checked before a call has a place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NoReturn

from bridge_py.wire.errors import EncodeError, InvalidCall, UsageError
from snakepit_trio._config.policies import RetryPolicy
from snakepit_trio._util.validation import is_utf8, is_whole, refuse
from snakepit_trio.state.view import SessionView


class Default(Enum):
    """For parameters where None means something."""

    DEFAULT = "the pool's own"


DEFAULT: Final = Default.DEFAULT
Timeout = float | Default | None
Arguments = Mapping[str, Any]


def check_call(name: object, args: object) -> None:
    """Raise `UsageError` or `EncodeError`, which names the argument, for what no call can have."""
    if not isinstance(name, str):
        _refuse_name(name)
    _check_text(name, "the tool's name")
    if args is not None:
        if not isinstance(args, Mapping):
            raise UsageError(f"the arguments of {name!r} are a {type(args).__name__}; give a dict by parameter name")
        for key in args:
            if not isinstance(key, str):
                raise UsageError(f"the arguments of {name!r} have the key {key!r}; give parameter names, which are str")


def session_id_of(session: object, what: str) -> str | None:
    """The id of a session that is given as a handle, or as its id; None for none. `what` is what was called with it.

    Raises `UsageError` for anything else, and `EncodeError` for an id that cannot be sent.
    """
    if session is None:
        return None
    if isinstance(session, SessionView):
        session = session.id
    if not isinstance(session, str):
        raise UsageError(f"session={session!r} of {what!r} is no session's id, which is a str, and no handle of one")
    _check_text(session, f"session= of {what!r}")
    return session


def needed_session_id(session: object, what: str) -> str:
    """As `session_id_of`, where there must be a session: raises `InvalidCall` for None."""
    found = session_id_of(session, what)
    if found is None:
        raise InvalidCall(f"{what} is for a session: give session=, a handle of one or its id")
    return found


def _refuse_name(name: object) -> NoReturn:
    its_name = getattr(name, "__name__", None)
    remedy = f"give its name, {its_name!r}" if callable(name) and its_name else "give it as a str"
    raise UsageError(f"the tool's name is {name!r}, which is no str; {remedy}")


def _check_text(text: str, what: str) -> None:
    if not text.isascii() and not is_utf8(text):
        raise EncodeError(f"{what}, {text[:100]!r}, cannot be sent: it has half a character, which UTF-8 cannot hold")


def seconds_of(timeout: Any, what: str) -> float | None:
    """A time limit in seconds, or None for none. Raises `UsageError`, which says `what` it is of."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise UsageError(f"timeout={timeout!r} of {what}; give seconds, or None for no limit")
    try:
        return float(timeout)
    except OverflowError:
        return math.inf


def check_retries(retries: object) -> None:
    """Raise `UsageError` for what is no number of retries, nor a policy."""
    if retries is None or isinstance(retries, RetryPolicy):
        return
    if not is_whole(retries) or retries < 0:
        raise refuse("retries", retries, "give a number from 0 on, a snakepit_trio.RetryPolicy, or None")
