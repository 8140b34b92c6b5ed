"""Measures Python source: lines, functions, branches and cyclomatic complexity.

Cyclomatic complexity of a function is 1 + its decision points (T. J. McCabe, "A Complexity Measure",
IEEE Transactions on Software Engineering SE-2(4), 1976). Decision points are: each `if`, `elif`,
conditional expression, `for`, `while`, `except` and `assert`; each `for` and each `if` of a
comprehension; each operand of `and` and `or` after the first; each `case` that is not a bare `_`.
A nested function counts for itself and not for the one around it; code of a class or module outside
of functions counts as branches of the file, but as no function.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bridge_py import BaseAdapter, tool

Record = dict[str, Any]

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DECISIONS: Final = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert)


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
        for file in sorted(Path(path).rglob("*.py")):
            yield measure_file(str(file))


def measure_file(path: str) -> Record:
    """See the tool of this name."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        functions, branches = measure_source(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}"
        return {"path": path, "lines": 0, "functions": 0, "branches": 0, "complexity": 0, "measured": [], "error": text}
    return {
        "path": path,
        "lines": source.count("\n") + (not source.endswith("\n") and source != ""),
        "functions": len(functions),
        "branches": branches,
        "complexity": sum(function["complexity"] for function in functions),
        "measured": functions,
    }


def measure_source(source: str) -> tuple[list[Record], int]:
    """Functions of a source text, in the order of their lines, and its branches in all.

    Raises `SyntaxError`, or for very deep nesting `RecursionError` or `MemoryError`.
    """
    functions: list[Record] = []
    branches = 0
    # A stack in place of recursion: the depth of a parsed tree has no useful bound.
    work: list[tuple[ast.AST, str, Record | None]] = [(ast.parse(source), "", None)]
    while work:
        node, prefix, owner = work.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            prefix = f"{prefix}{node.name}."
        if isinstance(node, _FUNCTIONS):
            owner = _function(node, prefix[:-1])
            functions.append(owner)
        decisions = _decisions(node)
        branches += decisions
        if owner is not None:
            owner["complexity"] += decisions
        work.extend((child, prefix, owner) for child in ast.iter_child_nodes(node))
    functions.sort(key=lambda function: (function["line"], function["name"]))
    return functions, branches


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Record:
    end = node.end_lineno or node.lineno
    return {"name": name, "line": node.lineno, "length": end - node.lineno + 1, "complexity": 1}


def _decisions(node: ast.AST) -> int:
    if isinstance(node, _DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        bare = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None and node.pattern.name is None
        return 0 if bare and node.guard is None else 1
    return 0
