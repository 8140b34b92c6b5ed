"""Decides what dynamic calls may reach. It guards against mistakes and well-known tricks, and is not a sandbox.

Each step of a target is checked. The object that it leads to must itself come from an allowed package: even if `numpy`
is allowed, `numpy.lib.npyio.os` is still `os`. Functions, classes and modules are reached by their names and called.
They are never kept, nor passed as arguments. `AllowAll` is for adapters whose callers are trusted.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bridge_py.wire.errors import InvalidCall, NotAllowed, UsageError
from bridge_py.wire.public_names import home_of

from . import allowed_names as names

_TARGET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_LONGEST_TARGET: Final = 500
_LEAVES: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_PATHS: Final = frozenset({"path_or_buf", "path", "buf", "file", "path_or_buffer"})
_CODE: Final = (types.CodeType, types.FrameType, types.TracebackType, types.CellType)
_FUNCTIONS: Final = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    functools.partial,
    functools.partialmethod,
    staticmethod,
    classmethod,
    property,
    types.GenericAlias,
)
_CALLED_FUNCTION: Final = ("cython_function_or_method", "fused_cython_function", "_ArrayFunctionDispatcher")


def parts_of(target: object) -> list[str]:
    """Split a target into its steps. Raises `InvalidCall` if it is no text, and `NotAllowed` for an invalid text."""
    if not isinstance(target, str):
        raise InvalidCall(f"the target is a {type(target).__name__}; give a text such as 'math.sqrt' or 'stored.x.fit'")
    if len(target) > _LONGEST_TARGET or not _TARGET.fullmatch(target):
        shown = target if len(target) <= 60 else target[:60] + "..."
        raise NotAllowed(f"{shown!r} is no target: give names of ASCII letters, digits and _, joined by dots")
    return target.split(".")


class AllowAll:
    """Allows everything."""

    trusted = True
    patterns: Sequence[str] = ()

    def may_walk(self, module: str) -> bool:  # noqa: ARG002 - see `AllowList`
        """Whether targets may lead through a module."""
        return True

    def check_module(self, module: str, target: str) -> None:
        """Raise `NotAllowed` if a module must not be imported."""

    def check_builtin(self, name: str, target: str) -> None:
        """Raise `NotAllowed` if a builtin must not be used."""

    def check_step(self, owner: Any, name: str, target: str) -> None:
        """Raise `NotAllowed` if an attribute of an object must not be used."""

    def check_object(self, found: Any, step: str, target: str) -> None:
        """Raise `NotAllowed` if an object that a step has led to does not come from an allowed package."""

    def check_call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], target: str) -> None:
        """Raise `NotAllowed` if a function must not be called with these arguments, which have been resolved."""

    def check_value(self, value: Any, what: str, target: str) -> None:
        """Raise `NotAllowed` if a value must not be kept, sent or passed on."""

    def refusal(self, target: str, why: str, module: str | None = None) -> NotAllowed:
        """Make the error that says why a target is refused, and what to do."""
        allow = f"options={{'allow': ['default', {module!r}]}}, or with " if module else ""
        return NotAllowed(
            f"{target!r} is not allowed: {why}. If it must be, open the pool with {allow}options={{'trusted': True}},"
            " which lets all who call it run any code"
        )


class AllowList(AllowAll):
    """Allows the modules that `patterns` name; ".*" adds the modules below. "default" is `allowed_names.DEFAULT`."""

    trusted = False

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = _patterns_of(patterns)
        self._exact = {pattern.removesuffix(".*") for pattern in self.patterns}
        self._below = tuple(pattern[:-1] for pattern in self.patterns if pattern.endswith(".*"))
        roots = {pattern.partition(".")[0] for pattern in self.patterns}
        self._roots = roots | {other for root, other in names.COMPANIONS.items() if root in roots}

    def may_walk(self, module: str) -> bool:
        if module in self._exact:
            return True
        apart = any(module == each or module.startswith(each + ".") for each in names.APART)
        return module.startswith(self._below) and not apart if self._below else False

    def check_module(self, module: str, target: str) -> None:
        if not self.may_walk(module):
            raise self.refusal(target, f"the module {module!r} is not on the allow-list", module)

    def check_builtin(self, name: str, target: str) -> None:
        if name not in names.BUILTINS:
            raise self.refusal(target, f"the builtin {name!r} is not on the allow-list")

    def check_step(self, owner: Any, name: str, target: str) -> None:
        if name.startswith("_") and name not in names.SPECIAL:
            raise self.refusal(target, f"{name!r} is private")
        if names.DENIED.fullmatch(name):
            raise self.refusal(target, f"{name!r} is refused wherever it is found")
        if name == "__mod__" and _is_text(owner):
            raise self.refusal(target, f"{name!r} of a text calls what it is given")
        if type(owner).__name__ in names.OPAQUE and type(owner).__module__ == "builtins":
            raise self.refusal(target, f"{name!r}: a {type(owner).__name__} has no attributes that may be used")

    def check_object(self, found: Any, step: str, target: str) -> None:
        if isinstance(found, types.ModuleType):
            self.check_module(found.__name__, target)
            if sys.modules.get(found.__name__) is not found:
                raise self.refusal(target, f"{step!r} is no module of that name")
            return
        if isinstance(found, _CODE):
            raise self.refusal(target, f"{step!r} is a {type(found).__name__}")
        home = _home_of(found)
        if home is None or not self._may_come_from(*home):
            where = "an unknown place" if home is None else f"{home[0]}.{home[1]}"
            raise self.refusal(target, f"{step!r} comes from {where}", None if home is None else home[0])

    def check_call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], target: str) -> None:
        for value in (*args, *kwargs.values()):
            self.check_value(value, "an argument", target)
        if name in names.WRITERS and (args or _PATHS & kwargs.keys()):
            raise self.refusal(target, f"{name!r} would write to a file: leave its path out and it returns text")
        if name in names.AGGREGATORS:
            self._check_names([*args, {**kwargs, "aggfunc": None}], target)
            self._check_names([*args[3:], kwargs.get("aggfunc")], target, only_plain=True)
        elif name in names.NAME_TAKERS or name in names.DISPATCHERS:
            self._check_names([args, kwargs], target, only_plain=name in names.DISPATCHERS)
        if names.READERS.fullmatch(name):
            self._check_reading(name, args, kwargs, target)
        self._check_keywords([kwargs, *args], target)

    def check_value(self, value: Any, what: str, target: str) -> None:
        seen: set[int] = set()
        parts = [value]
        while parts:
            part = parts.pop()
            if type(part) in _LEAVES or id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, (type, types.ModuleType, *_FUNCTIONS, *_CODE)) or _is_cython(part):
                raise self.refusal(target, f"{what} is, or has in it, a {type(part).__name__}, which is not passed on")
            parts += _items_of(part)

    def _may_come_from(self, module: str, name: str) -> bool:
        root = module.partition(".")[0]
        if root == "builtins":
            return name in names.BUILTINS or name in names.VALUES or name in names.OPAQUE
        return root in self._roots

    def _check_names(self, given: Any, target: str, *, only_plain: bool = False) -> None:
        parts = [given]
        while parts:
            part = parts.pop()
            if isinstance(part, str):
                if part.startswith("_") or names.DENIED.fullmatch(part) or part in names.WRITERS:
                    raise self.refusal(target, f"its argument {part!r:.100} may be the name of a function")
            elif type(part) in _LEAVES or isinstance(part, (dict, list, tuple, set, frozenset)):
                parts += _items_of(part)
            elif only_plain:
                kind = type(part).__name__
                raise self.refusal(target, f"an argument is a {kind}, where only plain values may be, or names")

    def _check_reading(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], target: str) -> None:
        if name == "load" and (len(args) > 1 or kwargs.keys() - {"file"}):
            raise self.refusal(target, "'load' takes a path here, and nothing else: it may read pickles, or write")
        if any(isinstance(value, str) and "://" in value for value in (*args, *kwargs.values())):
            raise self.refusal(target, f"{name!r} would read from the network")
        if "storage_options" in kwargs:
            raise self.refusal(target, "'storage_options' is for the network")

    def _check_keywords(self, given: Any, target: str) -> None:
        parts = [given]
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                if any(key == "memory" or str(key).endswith("__memory") for key in part if part[key] is not None):
                    raise self.refusal(target, "the parameter 'memory' is a folder of pickles")
                if "refcheck" in part:
                    raise self.refusal(target, "'refcheck' may leave arrays without memory")
                if part.get("allow_pickle"):
                    raise self.refusal(target, "'allow_pickle' runs what is in a file")
            if isinstance(part, (dict, list, tuple)):
                parts += _items_of(part)


def _patterns_of(patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise UsageError(f"allow is the text {patterns!r}; give a list of module names")
    found: list[str] = []
    for pattern in patterns:
        if pattern == "default":
            found += names.DEFAULT
        elif isinstance(pattern, str) and _TARGET.fullmatch(pattern.removesuffix(".*")):
            found.append(pattern)
        else:
            raise UsageError(f"allow: {pattern!r} is no pattern: give 'package.module', 'package.*' or 'default'")
    return tuple(found)


def _home_of(found: Any) -> tuple[str, str] | None:
    """Find the module that an object truly comes from, and its name there. For a value, these are its class's."""
    if isinstance(found, type):
        return home_of(found), found.__qualname__
    if isinstance(found, types.FunctionType):
        return str(found.__globals__.get("__name__")), found.__qualname__
    if isinstance(found, (functools.partial, types.MethodType)):
        return _home_of(found.func if isinstance(found, functools.partial) else found.__func__)
    if isinstance(found, types.BuiltinFunctionType):
        return _home_of_builtin(found)
    if isinstance(found, types.MethodWrapperType):
        return _home_of(type(found.__self__))
    if isinstance(found, (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)):
        return _home_of(found.__objclass__)
    if type(found) is functools._lru_cache_wrapper:
        return _home_of(found.__wrapped__)
    if _is_cython(found):
        return str(found.__module__), str(found.__name__)
    return _home_of(type(found))


def _home_of_builtin(found: types.BuiltinFunctionType) -> tuple[str, str] | None:
    owner = found.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        module = found.__module__ if owner is None else owner.__name__
        return None if module is None else (module, found.__name__)
    return _home_of(owner if isinstance(owner, type) else type(owner))


def _is_cython(found: Any) -> bool:
    return type(found).__name__ in _CALLED_FUNCTION


def _is_text(owner: Any) -> bool:
    kinds = (str, bytes, bytearray)
    return isinstance(owner, kinds) or (isinstance(owner, type) and issubclass(owner, kinds))


def _items_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    return []
