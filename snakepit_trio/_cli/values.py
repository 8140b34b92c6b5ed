"""What shells complete beside commands and options: adapters, and their tools.

Both are read from the sources of modules. No code of the user's runs, and no worker starts, when somebody presses Tab.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import ast

    import click
    from click.shell_completion import CompletionItem

_DEEPEST: Final = 3  # folders below the working directory
_MOST_FILES: Final = 500
_LONGEST: Final = 1 << 18  # bytes of a file
_MARK: Final = b"bridge_py"
_SKIPPED: Final = frozenset(("node_modules", "venv", "build", "dist", "site-packages", "__pycache__"))
_SHOWCASE: Final = "bridge_py.adapters.showcase:Showcase"


def adapters(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The adapters in files below the working directory, by module or by path, and the showcase; else files."""
    from click.shell_completion import CompletionItem

    by_path = "/" in incomplete or ".py" in incomplete
    found = {name for path in _sources() for name in _names(path, by_path=by_path)}
    fitting = sorted(name for name in found | {_SHOWCASE} if name.startswith(incomplete))
    return [CompletionItem(name) for name in fitting] or [CompletionItem(incomplete, type="file")]


def tools(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The tools of the adapter that is on the command line already."""
    from click.shell_completion import CompletionItem

    found = sorted(set(_tools_of(context.params.get("adapter") or "")))
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _sources() -> Iterator[Path]:
    left = _MOST_FILES
    for folder, folders, files in os.walk("."):
        depth = folder.count(os.sep)
        folders[:] = sorted(
            each for each in folders if depth < _DEEPEST and each.isidentifier() and each not in _SKIPPED
        )
        for file in sorted(files):
            if file.endswith(".py") and left:
                left -= 1
                yield Path(folder, file)


def _names(path: Path, *, by_path: bool) -> Iterator[str]:
    parts = path.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    place = str(path) if by_path else module
    if (tree := _read(path)) is not None and place:
        public = (each for each in _classes(tree) if not each.name.startswith("_"))
        yield from (f"{place}:{each.name}" for each in public if _is_adapter(each, tree))


def _read(path: Path) -> ast.Module | None:
    """The syntax tree of a file that may have an adapter; None of any other file."""
    import ast

    try:
        with path.open("rb") as file:
            source = file.read(_LONGEST)
        return ast.parse(source) if _MARK in source else None
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    import ast

    return [each for each in tree.body if isinstance(each, ast.ClassDef)]


def _bases(found: ast.ClassDef) -> set[str]:
    return {_last_name(each) for each in found.bases}


def _is_adapter(found: ast.ClassDef, tree: ast.Module) -> bool:
    return any("BaseAdapter" in _bases(each) for each in _with_bases(found, tree))


def _with_bases(found: ast.ClassDef, tree: ast.Module) -> list[ast.ClassDef]:
    """A class, and those of its bases that are in the same file."""
    known = {each.name: each for each in _classes(tree)}
    lineage = [found]
    for each in lineage:  # which grows meanwhile
        lineage += [known[base] for base in sorted(_bases(each)) if base in known and known[base] not in lineage]
    return lineage


def _tools_of(adapter: str) -> Iterator[str]:
    place, _, name = adapter.rpartition(":" if ":" in adapter else ".")
    for path in _paths(place) if place and "\0" not in place else ():
        tree = _read(path)
        for found in [] if tree is None else _classes(tree):
            if found.name == name and tree is not None:
                yield from (tool for each in _with_bases(found, tree) for tool in _marked(each))


def _paths(place: str) -> list[Path]:
    if place.endswith(".py"):
        return [Path(place)]
    parts = place.split(".")
    folders = [Path(), *map(Path, sys.path)]
    there = [folder.joinpath(*parts) for folder in folders]
    return [path for each in there for path in (Path(f"{each}.py"), each / "__init__.py") if path.is_file()][:1]


def _marked(found: ast.ClassDef) -> Iterator[str]:
    import ast

    for each in found.body:
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            marks = {_last_name(mark) for mark in each.decorator_list}
            if "tool" in marks:
                yield each.name


def _last_name(node: Any) -> str:
    """The last part of a name such as `bridge_py.tool`, also of its call or its subscript; empty for others."""
    node = getattr(node, "func", node)
    node = getattr(node, "value", node) if type(node).__name__ == "Subscript" else node
    return str(getattr(node, "attr", None) or getattr(node, "id", ""))
