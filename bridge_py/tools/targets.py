"""Finds what a worker is asked to import: an adapter's class, or a function."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from bridge_py.wire.environment import LOADING, SCRIPT_MODULE, SCRIPT_VARIABLE
from bridge_py.wire.errors import UsageError

_CHILDREN_IMPORT_FROM: Final = str(Path(__file__).resolve().parent.parent / "script")


def module_of(place: str, what: str) -> ModuleType:
    """Import the module of a name, or of a path that ends in ".py". `what` is what is looked for there.

    Raises `UsageError` for a path that is no file, and for a module in the working directory if that is not on
    `sys.path`. Other errors of the import are not caught.
    """
    return script(Path(place)) if place.endswith(".py") else _import(place, what)


def attribute_of(module: ModuleType, name: str) -> Any:
    """Return what a module has under a name, which may have dots; None if there is nothing."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def main_place(main: ModuleType) -> str | None:
    """The name, or the path, by which other processes can import a main program. None if it is no module and no file.

    The main program of an interactive session, or from standard input, is neither.
    """
    spec = getattr(main, "__spec__", None)
    if spec is not None and not main.__name__.startswith(SCRIPT_MODULE):
        return str(spec.name)
    file = _file_of(main)
    return None if file is None or not file.is_file() else str(file)


def _import(place: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        top = place.partition(".")[0]
        if error.name == top and (os.path.isfile(f"{top}.py") or os.path.isdir(top)):
            raise UsageError(
                f"{what}: {top} is in the working directory, where your program imports nothing, so its "
                "workers do not either: start the program by `python -m`, add the directory to PYTHONPATH, or name it "
                "as 'path/to/file.py:name'"
            ) from error
        raise


def script(path: Path) -> ModuleType:
    """Return the module of a Python file, which is loaded once. Raises `UsageError` if there is no such file."""
    path = path.resolve()
    for name in ("__main__", SCRIPT_MODULE, _another(path)):
        if (known := sys.modules.get(name)) is not None and _file_of(known) == path:
            return known
    return _load(path, SCRIPT_MODULE if SCRIPT_MODULE not in sys.modules else _another(path))


def _another(path: Path) -> str:
    return f"{SCRIPT_MODULE}_{path.stem}"


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _load(path: Path, name: str) -> ModuleType:
    # The name keeps `if __name__ == "__main__"` of a script from running in its workers.
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"{str(path)!r} is not a Python file that exists: give a path from the workers' directory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.parent))
    if name == SCRIPT_MODULE:
        # Processes that tools start import the module by its name.
        os.environ[SCRIPT_VARIABLE] = str(path)
        sys.path.append(_CHILDREN_IMPORT_FROM)
    module.__dict__[LOADING] = True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)  # as for every module: the next import tries again
        raise
    del module.__dict__[LOADING]
    return module
