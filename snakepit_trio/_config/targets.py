"""Names classes and functions of the application, so that a worker can import them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from bridge_py.tools.pickling import PLAIN, Values, advice
from bridge_py.tools.targets import attribute_of, main_place
from bridge_py.wire import codec
from bridge_py.wire.environment import LOADING, SCRIPT_MODULE
from bridge_py.wire.errors import UsageError


def place_of(module: str, what: str) -> str:
    """The name of a module, or the path of the file that it is, by which a worker can import it.

    The program's main script has no module that a worker could import by name. Raises `UsageError` if there is no such
    file, and if a worker opens a pool while it loads the script; `what` names what is looked for in the module.
    """
    place = _place(module, what)
    if place is None:
        raise _interactive(what)
    return place


def _place(module: str, what: str) -> str | None:
    if module.startswith(SCRIPT_MODULE):
        return _script(module, what)
    return main_place(sys.modules["__main__"]) if module == "__main__" else module


def _interactive(what: str, further: str = "") -> UsageError:
    return UsageError(f"{what} was defined interactively; put it into a module{further}")


def _script(module: str, what: str) -> str:
    script = sys.modules[module]
    if hasattr(script, LOADING):
        raise UsageError(
            f"{script.__file__} opens a pool while its own worker loads it for {what}: put "
            'what the program does under `if __name__ == "__main__":`'
        )
    return str(script.__file__)


def target_of(function: Any) -> str:
    """The name by which a worker imports a function: `package.module:name`, or `path/to/file.py:name`.

    Raises `UsageError` if it has no such name.
    """
    found = _place_and_name(function)
    if found is None:
        raise UsageError(
            f"workers cannot import {shown(function)}: it is a lambda, a method of an object, or was made inside"
            f" another function, or at a prompt. Give a function at the top of a module{advice(function)}"
        )
    place, name = found
    if place is None:
        raise _interactive(shown(function), advice(function))
    return f"{place}:{name}"


def find_target(function: Any) -> str | None:
    """As `target_of`, but None for a function that has no such name."""
    place, name = _place_and_name(function) or (None, "")
    return None if place is None else f"{place}:{name}"


def _place_and_name(function: Any) -> tuple[str | None, str] | None:
    for module, name in _names(function):
        if _same(attribute_of(sys.modules[module], name), function):
            return _place(module, shown(function)), name
    return None


def shown(function: Any) -> str:
    """The name of a function for messages and statistics."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else repr(function)[:100]


def _names(function: Any) -> Iterator[tuple[str, str]]:
    """Where a function may be found: loaded modules, with the name that it would have there."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if not isinstance(name, str) or "<" in name:
        return
    if inspect.ismethod(function):
        yield from _names_of_method(function)
        return
    owner = getattr(function, "__objclass__", None) or getattr(function, "__self__", None)
    modules = [getattr(function, "__module__", None), getattr(owner, "__module__", None), "builtins"]
    yield from ((module, name) for module in modules if module in sys.modules)
    # Some functions in C, such as numpy's, do not tell their module. There are hundreds of modules: they come last.
    yield from ((module, name) for module in _with(name))


def _names_of_method(method: Any) -> list[tuple[str, str]]:
    """A method of a class is found there; one of an object only if its module has it by itself, as random.randint."""
    owner, module = method.__self__, method.__module__
    if isinstance(owner, type) and owner.__module__ in sys.modules:
        return [(owner.__module__, f"{owner.__qualname__}.{method.__name__}")]
    loaded = vars(sys.modules[module]) if module in sys.modules else {}
    return [(module, name) for name, value in list(loaded.items()) if _same(value, method)]


def _with(name: str) -> list[str]:
    return [module for module, loaded in list(sys.modules.items()) if name in getattr(loaded, "__dict__", ())]


def _same(found: Any, function: Any) -> bool:
    if found is function:
        return True
    # A method of a class is made anew each time that it is asked for.
    is_method = inspect.ismethod(function) or inspect.isbuiltin(function)
    return is_method and type(found) is type(function) and bool(found == function)


def unwrapped(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], Any]:
    """Take the arguments out of a `functools.partial`."""
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def call_of(function: Any, args: Any, values: Values) -> bytes:
    """Encode a call of a function, for a worker's start. Raises `UsageError` and `EncodeError`."""
    if not callable(function):
        raise UsageError(f"initializer={function!r:.100}: give a function that workers can import, or None")
    function, args, kwargs = unwrapped(function, tuple(args), {})
    target = target_of(function) if values is PLAIN else find_target(function) or function
    call = values.exact({"function": target, "args": list(args), "kwargs": kwargs})
    return codec.encode(call, "initargs", beside=1 << 62).body
