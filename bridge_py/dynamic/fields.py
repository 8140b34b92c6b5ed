"""The values that an object has as its data: columns of a frame, fields of a record, what a model has learned."""

from __future__ import annotations

import inspect
from typing import Any, Final

from . import kinds

MISSING: Final = object()
#: Classes whose objects are dicts with their keys as attributes.
_RECORDS: Final = ("sklearn.utils:Bunch", "scipy.optimize:OptimizeResult", "scipy._lib._util:_RichResult")


def find(owner: Any, name: str) -> Any:
    """Return a value that an object has as its data under a public name, else `MISSING`. Models give copies."""
    kind = type(owner)
    if isinstance(owner, tuple) and name in getattr(kind, "_fields", ()):
        return getattr(owner, name)
    if _is_a(kind, "sklearn.base:BaseEstimator"):
        return _copy(_learned(owner, name))
    if any(_is_a(kind, record) for record in _RECORDS):
        return dict(owner).get(name, MISSING)
    if inspect.getattr_static(kind, name, MISSING) is not MISSING:
        return MISSING
    return _column(owner, name)


def _learned(model: Any, name: str) -> Any:
    if name in vars(model):
        return vars(model)[name]
    is_property = isinstance(inspect.getattr_static(type(model), name, None), property)
    return getattr(model, name, MISSING) if name.endswith("_") and is_property else MISSING


def _column(owner: Any, name: str) -> Any:
    kind = type(owner)
    if _is_a(kind, "pandas:DataFrame"):
        return owner[name] if name in owner.columns else MISSING
    if _is_a(kind, "pandas:Series"):
        return owner[name] if name in owner.index else MISSING
    if _is_a(kind, "pandas.api.typing:DataFrameGroupBy"):
        return owner[name] if name in owner.obj.columns else MISSING
    return MISSING


def _copy(value: Any) -> Any:
    """Copy an array, because a model's own arrays, when changed, would let compiled code read beyond them."""
    is_array = _is_a(type(value), "numpy:ndarray") or _is_a(type(value), "scipy.sparse._base:_spbase")
    return value.copy() if is_array else value


def _is_a(kind: type, name: str) -> bool:
    found = kinds.named(name)
    return isinstance(found, type) and issubclass(kind, found)
