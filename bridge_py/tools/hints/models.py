"""Makes pydantic models of what they were sent as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge_py.wire.registry import Marked

from .own import Unenforceable, convert, plain

Of = Callable[[Any], Any]  # translates a hint to terms of msgspec


def converter_of(kind: Any, of: Of, of_subclass: Callable[[type, Marked, Of], Any]) -> Callable[[Any], Any]:
    """Make the function that makes models of a class.

    A model that was sent gets its fields, extra values and private attributes as they were: its validators do not run
    again. A plain dict is validated as pydantic does.
    """
    hints = {name: _hint_of(field.annotation, of) for name, field in kind.model_fields.items()}
    anything = of(Any)
    required = {name for name, field in kind.model_fields.items() if field.is_required()}

    def make(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Marked):
            return _validated(kind, value)
        if value.member is not None or value.kind != kind.__qualname__:
            return of_subclass(kind, value, of)
        content = value.content
        if type(content) is not dict or required - content.keys() or not all(type(name) is str for name in content):
            raise ValueError(f"these are no fields of `{kind.__qualname__}`")
        return _made(kind, {name: convert(item, hints.get(name, anything)) for name, item in content.items()})

    return make


def _hint_of(hint: Any, of: Of) -> Any:
    try:
        return of(hint)
    except Unenforceable:  # what pydantic alone knows, such as a text that is an address
        return of(Any)


def _validated(kind: Any, value: Any) -> Any:
    try:
        return kind.model_validate(plain(value))
    except ValueError as error:
        raise ValueError(f"{kind.__qualname__} cannot be made: {error}") from None


def _made(kind: Any, values: dict[str, Any]) -> Any:
    fields = {name: item for name, item in values.items() if name in kind.model_fields}
    private = {name: item for name, item in values.items() if name in kind.__private_attributes__}
    extra = {name: item for name, item in values.items() if name not in fields and name not in private}
    takes_extra = kind.model_config.get("extra") == "allow"
    if extra and not takes_extra:
        raise ValueError(f"`{kind.__qualname__}` has no field {next(iter(extra))!r}")
    made = kind.__new__(kind)
    object.__setattr__(made, "__dict__", fields)
    object.__setattr__(made, "__pydantic_fields_set__", set(fields))
    object.__setattr__(made, "__pydantic_extra__", extra if takes_extra else None)
    object.__setattr__(made, "__pydantic_private__", private if kind.__private_attributes__ else None)
    return made
