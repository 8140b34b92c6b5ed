"""The command `snakepit`, from its first line. It needs nothing but the standard library.

Where the package cannot be imported, this says why. `snakepit doctor` then checks whatever it can.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = ("snakepit_trio", "bridge_py")


def main() -> None:
    """Run the command. `snakepit doctor` is not hindered by modules that hide those of the standard library."""
    is_doctor = sys.argv[1:2] == ["doctor"]
    if is_doctor:
        _look_past()
    try:
        from snakepit_trio._cli.main import main as command
    except Exception as error:
        if type(error).__name__ == "UnsupportedSystem":
            sys.exit(f"Error: {error}")
        if not isinstance(error, ImportError) and not list(hidden_by_path()):
            raise
        sys.exit(_check_what_can_be() if is_doctor else _explain(error))
    try:
        command(prog_name="snakepit")
    except ImportError as error:  # most of the package is imported when a command first uses it
        sys.exit(_explain(error))


def hidden_by_path() -> Iterator[tuple[str, str]]:
    """Modules of the standard library that PYTHONPATH hides from all programs: their names, and what comes before."""
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        yield from hides(folder)


def hides(folder: str) -> Iterator[tuple[str, str]]:
    """What in a folder has the names of modules of the standard library: the names and the paths."""
    try:
        found = sorted(os.listdir(folder))
    except OSError:
        return
    for entry in found:
        name, _, kind = entry.partition(".")
        path = os.path.join(folder, entry)
        is_package = not kind and os.path.isfile(os.path.join(path, "__init__.py"))
        is_module = kind == "py" or kind.endswith("so")
        if (is_module or is_package) and name in sys.stdlib_module_names and not _is_built_in(name):
            yield name, path


def _is_built_in(name: str) -> bool:
    """Whether Python looks for a module in itself first. The standard library's own folder hides nothing either."""
    return name in sys.builtin_module_names or name.startswith("_") or name in ("sitecustomize", "usercustomize")


def _look_past() -> None:
    """Take the folders of PYTHONPATH that hide modules of the standard library off the path of this process.

    Workers have them: they inherit the variable.
    """
    folders = {os.path.abspath(os.path.dirname(path)) for _, path in hidden_by_path()}
    if not folders:
        return
    ours = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) not in folders - {ours}]


def _explain(error: Exception) -> str:
    if hidden := list(hidden_by_path()):
        shown = ", ".join(path for _, path in hidden)
        return f"Error: {type(error).__name__}: {error}\n{shown} on PYTHONPATH hides the standard library: rename it"
    return f"Error: {error}\n`snakepit doctor` says which packages are missing or broken, and what to do"


def _check_what_can_be() -> int:
    """Run the doctor with the parts of the packages that can be imported. Returns the exit code."""
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    here = os.path.dirname(os.path.abspath(__file__))
    for name in _PACKAGES:
        # What the package's own first lines import is missing or broken. Its parts can do without those lines.
        package = ModuleType(name)
        package.__path__ = [os.path.join(here, name)]
        package.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules.setdefault(name, package)
    from snakepit_trio._cli.report import examine

    names = [argument for argument in sys.argv[2:] if not argument.startswith("-")]
    return examine(names[0] if names else None, as_json="--json" in sys.argv[2:])


if __name__ == "__main__":
    main()
