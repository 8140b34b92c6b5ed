"""Measures Python source: lines, functions, branches and cyclomatic complexity.

The cyclomatic complexity of a function is 1 + its decision points: T. J. McCabe, "A Complexity
Measure", IEEE Transactions on Software Engineering SE-2(4), 1976. Decision points, by node of `ast`:

* 1 each: `If` (an `elif` is one), `IfExp`, `For`, `AsyncFor`, `While`, `ExceptHandler`, `Assert`;
* `BoolOp`: its operands - 1, so `a and b and c` has 2;
* `comprehension`: 1 for its `for` and 1 for each of its `if`s;
* `match_case`: 1, but 0 for a bare `_` without a guard.

`else`, `finally`, `with` and `lambda` are no decision points. Decision points in a lambda, or in the body of a class
that is defined in a function, count for the function around it; those of a nested function count for that function
only. A function's decorators and defaults are counted with it. Decision points outside of all functions are branches of
the file and of no function.
"""

from __future__ import annotations

import ast
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from bridge_py import BaseAdapter, tool

Record = dict[str, Any]

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DECISIONS: Final = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert)
# The errors of reading and parsing files that are no Python. A coding line that names something like `hex`
# raises LookupError. Source that is nested too deeply raises one of the last three, by version of Python.
_NOT_PYTHON: Final = (OSError, SyntaxError, ValueError, LookupError, RecursionError, MemoryError, SystemError)


class SourceMetrics(BaseAdapter):
    """Tools that measure files of Python source."""

    @tool
    def measure_file(self, path: str) -> Record:
        """Measure one file.

        Returns `path`, `lines`, `functions` (how many), `branches`, `complexity` (the sum over functions)
        and `measured`, a list of `name`, `line`, `length` (lines) and `complexity` by function. A file that
        cannot be read or parsed has an `error` text as well, and counts of 0.

        Args:
            path: The file.

        """
        return measure_file(path)

    @tool
    def measure_tree(self, path: str) -> Iterator[Record]:
        """Measure each Python file below a folder, one record a file, in the order of their paths.

        Args:
            path: The folder.

        """
        for file in source_files(path):
            yield measure_file(file)


def source_files(folder: str | Path, skip: Iterable[str] = ()) -> list[str]:
    """Paths of the regular `.py` files below a folder, sorted.

    Leaves out `__pycache__` and folders of the names in `skip`; does not follow links to folders.
    """
    root = Path(folder)
    skipped = {"__pycache__", *skip}
    found = (path for path in root.rglob("*.py") if skipped.isdisjoint(path.relative_to(root).parts[:-1]))
    return sorted(str(path) for path in found if path.is_file())


def measure_file(path: str) -> Record:
    """Measure one file; `SourceMetrics.measure_file` describes the record. Raises nothing for a bad file."""
    try:
        source = read_source(path)
        functions, branches = measure_source(source)
    except _NOT_PYTHON as error:
        text = f"{type(error).__name__}: {error}"
        return {"path": path, "lines": 0, "functions": 0, "branches": 0, "complexity": 0, "measured": [], "error": text}
    return {
        "path": path,
        "lines": source.count("\n") + (source != "" and not source.endswith("\n")),
        "functions": len(functions),
        "branches": branches,
        "complexity": sum(function["complexity"] for function in functions),
        "measured": functions,
    }


def read_source(path: str) -> str:
    """Read the text of a source file, in the encoding that its first lines or its byte order mark name (PEP 263).

    Raises `OSError`, `ValueError`, and `SyntaxError` or `LookupError` for an unknown encoding.
    """
    with tokenize.open(path) as file:
        return file.read()


def measure_source(source: str) -> tuple[list[Record], int]:
    """Measure a source text.

    Returns its functions, in the order of their lines, each with `name` (as in `Class.method.inner`),
    `line` (of the `def`, from 1), `length` (lines from the `def` to the end) and `complexity`; and the
    number of all its decision points. Raises `SyntaxError` or `ValueError`, and for nesting that is too
    deep for the parser `RecursionError`, `MemoryError` or `SystemError`.
    """
    functions: list[Record] = []
    branches = 0
    # A stack in place of recursion, because the tree of a long chain of operators may have any depth.
    work: list[tuple[ast.AST, str, Record | None]] = [(_parse(source), "", None)]
    while work:
        node, prefix, owner = work.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            prefix = f"{prefix}{node.name}."
        if isinstance(node, _FUNCTIONS):
            owner = _new_function(node, prefix[:-1])
            functions.append(owner)
        decisions = count_decisions(node)
        branches += decisions
        if owner is not None:
            owner["complexity"] += decisions
        work.extend((child, prefix, owner) for child in ast.iter_child_nodes(node))
    functions.sort(key=lambda function: (function["line"], function["name"]))
    return functions, branches


def count_decisions(node: ast.AST) -> int:
    """Count the decision points of one node, without its children."""
    if isinstance(node, _DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return 0 if _is_bare_wildcard(node) else 1
    return 0


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        # The parser warns of texts such as "\d", which do not matter here.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _new_function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Record:
    end = node.end_lineno or node.lineno
    return {"name": name, "line": node.lineno, "length": end - node.lineno + 1, "complexity": 1}


def _is_bare_wildcard(case: ast.match_case) -> bool:
    pattern = case.pattern
    return case.guard is None and isinstance(pattern, ast.MatchAs) and pattern.pattern is None and pattern.name is None
