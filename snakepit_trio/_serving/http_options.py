"""The settings of an HTTP app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import attrs

from snakepit_trio._util.validation import check_whole, refuse, seconds, whole


class HttpOptions(TypedDict, total=False):
    """The settings of `Pool.asgi_app`, which says what they mean; any of them may be left out."""

    token: str | None
    sessions: bool
    max_body_bytes: int
    max_timeout: float
    max_priority: int
    allowed_hosts: Sequence[str]
    allowed_origins: Sequence[str]
    keep_alive: float
    metrics: bool


def _token(_instance: object, field: Any, value: object) -> None:
    # The value is a secret, so no message shows it.
    if value is not None and not (isinstance(value, str) and len(value) >= 16 and _is_visible(value)):
        raise refuse(
            field.name, "...", "give a text of at least 16 visible characters of ASCII, such as secrets.token_urlsafe()"
        )


def _is_visible(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value


def _names(_instance: object, field: Any, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise refuse(field.name, value, "give a list of names")


def _flag(_instance: object, field: Any, value: object) -> None:
    if not isinstance(value, bool):
        raise refuse(field.name, value, "give True or False")


def _priority(_instance: object, field: Any, value: object) -> None:
    check_whole(field.name, value, -100, 100)


@attrs.frozen(kw_only=True)
class HttpSettings:
    """The settings, checked. Raises `UsageError`."""

    token: str | None = attrs.field(default=None, validator=_token, repr=False)
    sessions: bool = attrs.field(default=True, validator=_flag)
    max_body_bytes: int = attrs.field(default=8 * 2**20, validator=whole(1))
    max_timeout: float = attrs.field(default=3600.0, validator=seconds())
    max_priority: int = attrs.field(default=0, validator=_priority)
    allowed_hosts: Sequence[str] = attrs.field(default=(), validator=_names)
    allowed_origins: Sequence[str] = attrs.field(default=(), validator=_names)
    keep_alive: float = attrs.field(default=15.0, validator=seconds())
    metrics: bool = attrs.field(default=False, validator=_flag)
