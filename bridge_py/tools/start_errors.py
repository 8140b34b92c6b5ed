"""Says what to do when a worker cannot import what it is asked for. Imported only then: workers start sooner."""

from __future__ import annotations

import sys
from types import ModuleType

from bridge_py.wire.errors import UsageError

from .misuse import offer
from .targets import attribute_of


def no_adapter(target: str, place: str, module: ModuleType, name: str) -> UsageError:
    """Make the error for a name that is no adapter in its module. It names the adapters that are there."""
    text = f"adapter {target!r}: {place} has no class {name} that derives from bridge_py.BaseAdapter"
    if isinstance(attribute_of(module, name), type):
        return UsageError(f"{text}: write `class {name}(bridge_py.BaseAdapter)`")
    if place.partition(".")[0] in sys.stdlib_module_names:
        return UsageError(f"{text}{hidden(place)}")
    here = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return UsageError(f"{text}; {offer(name, [key for key in here if isinstance(getattr(module, key), type)])}")


def hidden(place: str) -> str:
    """Say that a module of the application may be hidden, if Python itself has a module of that name; else nothing."""
    if place.partition(".")[0] not in sys.stdlib_module_names:
        return ""
    return f" (this {place} is Python's own module: if you mean a file of yours, give that another name)"


def remedy(error: BaseException) -> str:
    """Say what to do about an import that has failed; nothing for other errors."""
    if isinstance(error, ModuleNotFoundError):
        return (
            f": install it for {sys.executable}, the workers' interpreter. If it is a file of yours, start the program"
            " in its folder, or add that to PYTHONPATH"
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return ": name the module with its package, as 'package.module:Class', and start the program above the package"
    return ""
