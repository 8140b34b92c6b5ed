"""Decides what dynamic calls may reach: what is listed, by exact name, and nothing else.

Modules and their names are listed, and classes with the methods and attributes of their objects. Objects of other
classes may only be held. Modules that owners add count as a whole. `AllowAll` is for adapters with trusted callers.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final, NoReturn

from bridge_py.wire.errors import InvalidCall, NotAllowed, UsageError
from bridge_py.wire.public_names import home_of

from . import allowed_names as names
from . import arguments, fields, kinds, rules

_TARGET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_NAME: Final = re.compile(rf"{_TARGET.pattern}:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_LONGEST_TARGET: Final = 500
_LEAVES: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
#: Classes that may be named, for their methods, but not called: they would take raw memory, or unchecked positions.
_NOT_CALLED: Final = ("numpy:ndarray", "polars:Expr")


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
    roots: Sequence[str] = ()

    def may_walk(self, module: str) -> bool:  # noqa: ARG002 - see `AllowList`
        """Whether targets may lead through a module."""
        return True

    def check_module(self, module: str, target: str) -> None:
        """Raise `NotAllowed` if a module must not be imported."""

    def check_builtin(self, name: str, target: str) -> None:
        """Raise `NotAllowed` if a builtin must not be used."""

    def check_step(self, owner: Any, name: str, target: str) -> None:
        """Raise `NotAllowed` if a name of an object must not be used, before it is looked up."""

    def field(self, owner: Any, name: str, target: str) -> Any:  # noqa: ARG002 - see `AllowList`
        """Return a value that an object has as its data, or `fields.MISSING` if `name` is no such value."""
        return fields.MISSING

    def check_object(self, found: Any, step: str, target: str) -> None:
        """Raise `NotAllowed` if an object that a step has led to does not come from an allowed package."""

    def is_curated(self, module: str, name: str) -> bool:  # noqa: ARG002 - see `AllowList`
        """Whether a name of a module is listed, so that what it leads to need not come from there."""
        return True

    def check_called(self, found: Any, target: str) -> None:
        """Raise `NotAllowed` if an object, which a call has found among the stored ones, must not be called."""

    def prepared(
        self, found: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], target: str
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments for a call. Raises `NotAllowed` if a function must not be called with them."""
        del found, name, target
        return args, kwargs

    def added_names(self, module: str) -> Set[str]:  # noqa: ARG002 - see `AllowList`
        """Return the names of a module that the owner has added."""
        return frozenset()

    def check_path(self, path: Any, target: str) -> None:
        """Raise `NotAllowed` if a file must not be read."""

    def check_value(self, value: Any, what: str, target: str) -> None:
        """Raise `NotAllowed` if a value must not be kept or sent."""

    def refusal(self, target: str, why: str, name: str | None = None) -> NotAllowed:
        """Make the error that says why a target is refused, and what to do."""
        allow = f"options={{'allow': ['default', {name!r}]}}, or with " if name else ""
        return NotAllowed(
            f"{target!r} is not allowed: {why}. If it must be, open the pool with {allow}options={{'trusted': True}},"
            " which lets all who call it run any code"
        )


class AllowList(AllowAll):
    """Allows what the curated tables list, and what `patterns` add.

    A pattern is "default", a module, "package.*" for the modules below too, or an exact name: "module:function" or
    "module:Class.method". `roots` are the folders below which files may be read; without them none are.
    """

    trusted = False

    def __init__(self, patterns: Iterable[str], roots: Iterable[str | os.PathLike[str]] = ()) -> None:
        self.patterns = _patterns_of(patterns)
        self._files = rules.Roots(roots)
        self.roots = self._files.paths
        modules = [pattern for pattern in self.patterns if ":" not in pattern]
        self._exact = {pattern.removesuffix(".*") for pattern in modules}
        self._below = tuple(pattern[:-1] for pattern in modules if pattern.endswith(".*"))
        self._added = {tuple(pattern.split(":")) for pattern in self.patterns if ":" in pattern}
        own = {pattern.partition(".")[0] for pattern in modules if pattern not in kinds.MODULES}
        self._own = own | {other for root, other in names.COMPANIONS.items() if root in own}
        self._roots = {pattern.partition(".")[0] for pattern in modules} | names.ALWAYS

    def may_walk(self, module: str) -> bool:
        if module in self._exact or any(module == each for each, _ in self._added):
            return True
        if not module.startswith(self._below):
            return False
        return not any(module == each or module.startswith(each + ".") for each in names.APART)

    def check_module(self, module: str, target: str) -> None:
        if not self.may_walk(module):
            raise self.refusal(target, f"the module {module!r} is not on the allow-list", module)

    def check_builtin(self, name: str, target: str) -> None:
        if name not in names.BUILTINS:
            raise self.refusal(target, f"the builtin {name!r} is not on the allow-list")

    def check_step(self, owner: Any, name: str, target: str) -> None:
        if isinstance(owner, types.ModuleType):
            self._check_name(owner, name, target)
            return
        kind = owner if isinstance(owner, type) else type(owner)
        if kind.__module__ == "builtins" and name == "__mod__" and issubclass(kind, (str, bytes, bytearray)):
            raise self.refusal(target, f"{name!r} of a text calls what it is given")
        if self._is_listed(kind, name):
            return
        if name.startswith("_") and name not in names.SPECIAL:
            raise self.refusal(target, f"{name!r} is private")
        if not self._is_own(kind) or names.DENIED.fullmatch(name):
            why = f"{name!r} of a {kind.__name__} is not on the allow-list"
            raise self.refusal(target, why, f"{kinds.key_of(kind)}.{name}")

    def field(self, owner: Any, name: str, target: str) -> Any:
        kind = type(owner)
        if isinstance(owner, (type, types.ModuleType)) or name.startswith("_") or self._is_listed(kind, name):
            return fields.MISSING
        if kinds.root_of(kind) not in self._roots | {"builtins"}:
            return fields.MISSING
        found = fields.find(owner, name)
        if found is not fields.MISSING:
            found = arguments.copied(found, self._refuse(target), is_strict=False)
            if callable(found):
                self.check_called(found, target)
        return found

    def check_object(self, found: Any, step: str, target: str) -> None:
        if isinstance(found, types.ModuleType):
            self.check_module(found.__name__, target)
            if sys.modules.get(found.__name__) is not found:
                raise self.refusal(target, f"{step!r} is no module of that name")
            return
        if kinds.is_inner_part(found):
            raise self.refusal(target, f"{step!r} is a {type(found).__name__}")
        home = _home_of(found)
        if home is None or not self._may_come_from(*home):
            where = "an unknown place" if home is None else f"{home[0]}.{home[1]}"
            raise self.refusal(target, f"{step!r} comes from {where}", None if home is None else home[0])

    def check_called(self, found: Any, target: str) -> None:
        kind = type(found)
        if not self._is_listed(kind, "__call__") and not self._is_own(kind):
            raise self.refusal(target, f"a {kind.__name__} of {kinds.root_of(kind)} may be held, and is not called")

    def prepared(
        self, found: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], target: str
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if any(found is kinds.named(each) for each in _NOT_CALLED):
            raise self.refusal(target, "the class takes raw memory; its methods may be called")
        refuse = self._refuse(target)
        owner = getattr(found, "__self__", None)
        is_method = owner is not None and not isinstance(owner, types.ModuleType)
        if is_method:
            arguments.check_labels(owner, refuse)
            rules.check_owner(owner, name, refuse)
        root = _root_of(found)
        is_strict = root not in self._own or root in kinds.ROOTS
        copies = [arguments.copied(value, refuse, is_strict=is_strict) for value in args]
        named = {key: arguments.copied(value, refuse, is_strict=is_strict) for key, value in kwargs.items()}
        for key in kwargs:
            arguments.check_text(key, refuse)
        rules.check_call(name, root, (copies, named), self._files, refuse)
        return rules.own_positions(name, (copies, named), is_method=is_method)

    def added_names(self, module: str) -> Set[str]:
        return frozenset(name for each, name in self._added if each == module)

    def check_path(self, path: Any, target: str) -> None:
        self._files.check(path, self._refuse(target))

    def check_value(self, value: Any, what: str, target: str) -> None:
        seen: set[int] = set()
        parts = [value]
        while parts:
            part = parts.pop()
            if type(part) in _LEAVES or id(part) in seen:
                continue
            seen.add(id(part))
            if kinds.is_code(part):
                raise self.refusal(target, f"{what} is, or has in it, a {type(part).__name__}, which is not passed on")
            arguments.check_labels(part, self._refuse(target))
            parts += _items_of(part)

    def _check_name(self, module: types.ModuleType, name: str, target: str) -> None:
        """Check a name of a module that targets may lead through."""
        path = module.__name__
        self.check_object(module, path, target)
        if self._lists(path, name) or (path, name) in self._added or self._is_submodule(module, name):
            return
        if name.startswith("_"):
            raise self.refusal(target, f"{name!r} is private")
        if path in kinds.MODULES or not self._is_walked(path):
            if name in vars(module) or hasattr(module, "__getattr__"):
                raise self.refusal(target, f"{name!r} of {path} is not on the allow-list", f"{path}:{name}")
        elif names.DENIED.fullmatch(name):
            raise self.refusal(target, f"{name!r} is refused wherever it is found", f"{path}:{name}")

    def _is_submodule(self, module: types.ModuleType, name: str) -> bool:
        """Whether a name means a module that may be walked, and nothing else of that name."""
        path = f"{module.__name__}.{name}"
        if not self.may_walk(path):
            return False
        if name in vars(module):
            return isinstance(vars(module)[name], types.ModuleType)
        try:
            return importlib.util.find_spec(path) is not None
        except ImportError:
            return False  # the module is no package

    def _lists(self, module: str, name: str) -> bool:
        return name in kinds.MODULES.get(module, ()) and self._is_walked(module)

    def _is_walked(self, module: str) -> bool:
        return module in self._exact or module.startswith(self._below)

    def is_curated(self, module: str, name: str) -> bool:
        return (module, name) in self._added or self._lists(module, name)

    def _is_listed(self, kind: type, name: str) -> bool:
        if kinds.root_of(kind) in self._roots:
            listed = kinds.names_of(kind)
            if listed is not None and (name in listed or name in names.SPECIAL):
                return True
        return any(
            name == method and kinds.named(f"{module}:{owner}") in kind.__mro__
            for module, each in self._added
            for owner, _, method in (each.partition("."),)
        )

    def _is_own(self, kind: type) -> bool:
        root = kinds.root_of(kind)
        return root in self._own and root not in kinds.ROOTS

    def _may_come_from(self, module: str, name: str) -> bool:
        root = module.partition(".")[0]
        if root == "builtins":
            return name in names.BUILTINS or name in names.VALUES
        if root in self._own:
            return True
        listed = (each for path, each in kinds.MODULES.items() if path.partition(".")[0] == root)
        return root in self._roots and any(name in each for each in listed)

    def _refuse(self, target: str) -> arguments.Refuse:
        def refuse(why: str) -> NoReturn:
            raise self.refusal(target, why)

        return refuse


def _patterns_of(patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise UsageError(f"allow is the text {patterns!r}; give a list of module names")
    found: list[str] = []
    for pattern in patterns:
        if pattern == "default":
            found += names.DEFAULT
        elif isinstance(pattern, str) and (_TARGET.fullmatch(pattern.removesuffix(".*")) or _NAME.fullmatch(pattern)):
            found.append(pattern)
        else:
            raise UsageError(
                f"allow: {pattern!r} is no pattern: give 'package.module', 'package.*', 'module:function',"
                " 'module:Class.method' or 'default'"
            )
    return tuple(found)


def _root_of(found: Any) -> str:
    """Return the package of a function, or of the object whose method it is."""
    home = _home_of(found)
    return "" if home is None else home[0].partition(".")[0]


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
    if kinds.is_function_like(found):
        return str(found.__module__), str(found.__name__)
    return _home_of(type(found))


def _home_of_builtin(found: types.BuiltinFunctionType) -> tuple[str, str] | None:
    owner = found.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        module = found.__module__ if owner is None else owner.__name__
        return None if module is None else (module, found.__name__)
    return _home_of(owner if isinstance(owner, type) else type(owner))


def _items_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    return []
