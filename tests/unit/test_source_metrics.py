"""Numbers of source metrics, counted by hand, and files that are no Python."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path

import pytest

from bridge_py.adapters.source_metrics import measure_file, measure_source, source_files


def complexities(source: str) -> dict[str, int]:
    functions, _ = measure_source(textwrap.dedent(source))
    return {function["name"]: function["complexity"] for function in functions}


@pytest.mark.parametrize(
    ("body", "decisions"),
    [
        ("pass", 0),
        ("if x: pass", 1),
        ("if x: pass\nelse: pass", 1),
        ("if x: pass\nelif y: pass\nelif z: pass\nelse: pass", 3),
        ("return a if x else b if y else c", 2),
        ("for i in x: pass\nelse: pass", 1),
        ("while x:\n    break", 1),
        ("while True: pass", 1),
        ("try: pass\nexcept A: pass\nexcept (B, C): pass\nelse: pass\nfinally: pass", 2),
        ("try: pass\nfinally: pass", 0),
        ("try: pass\nexcept* A: pass", 1),
        ("with x: pass", 0),
        ("assert x, y", 1),
        ("return a and b and c", 2),
        ("return a and b or c and d", 3),
        ("return a or (b or c)", 2),
        ("return not a", 0),
        ("return a < b < c", 0),
        ("if a and b: pass", 2),
        ("return [i for i in x]", 1),
        ("return [i for i in x if i if j for k in i]", 4),
        ("return {i: j for i, j in x if i and j}", 3),
        ("return (i for i in x), {i for i in x}", 2),
        ("return lambda: a or b", 1),
        ("match x:\n    case 1: pass\n    case 2 | 3: pass\n    case [a, *_]: pass\n    case _: pass", 3),
        ("match x:\n    case _ if a: pass\n    case other: pass", 2),
        ("match x:\n    case [_]: pass\n    case _: pass", 1),
        ("class C:\n    x = a if b else c", 1),
    ],
)
def test_each_kind_of_decision(body: str, decisions: int) -> None:
    source = f"def f():\n{textwrap.indent(body, '    ')}\n"
    functions, branches = measure_source(source)
    assert [function["complexity"] for function in functions] == [1 + decisions]
    assert branches == decisions


def test_async_code() -> None:
    source = """
        async def f(x):
            async for i in x:
                async with i:
                    pass
            return [j async for j in x if await j]
    """
    assert complexities(source) == {"f": 4}


def test_nested_functions_and_classes_have_names_and_counts_of_their_own() -> None:
    source = """
        if x: pass
        class A:
            y = 1 or 2
            def method(self):
                if a: pass
                def inner():
                    if b: pass
                    while c: pass
                class B:
                    async def deep(self):
                        assert d
                return inner
        def last(): pass
    """
    assert complexities(source) == {"A.method": 2, "A.method.inner": 3, "A.method.B.deep": 2, "last": 1}
    assert measure_source(textwrap.dedent(source))[1] == 6


def test_decorators_and_defaults_count_for_their_function() -> None:
    assert complexities("def f():\n    @(a or b)\n    def g(x=1 if c else 2): pass\n") == {"f": 1, "f.g": 3}


def test_a_record(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("import os\n\n@decorated\ndef f(x):\n    if x:\n        return 1\n\n\ndef g(): return 2")
    assert measure_file(str(path)) == {
        "path": str(path),
        "lines": 9,
        "functions": 2,
        "branches": 1,
        "complexity": 3,
        "measured": [
            {"name": "f", "line": 4, "length": 3, "complexity": 2},
            {"name": "g", "line": 9, "length": 1, "complexity": 1},
        ],
    }


@pytest.mark.parametrize(("content", "lines"), [(b"", 0), (b"\n", 1), (b"x", 1), (b"x\r\ny\r\n", 2), (b"x\ry", 2)])
def test_lines(tmp_path: Path, content: bytes, lines: int) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    record = measure_file(str(path))
    assert record["lines"] == lines
    assert "error" not in record


@pytest.mark.parametrize(
    "content",
    [
        "# coding: latin-1\ndef größe(): pass\n".encode("latin-1"),
        "def größe(): pass\n".encode("utf-8-sig"),
        "#!/bin/python\n# -*- coding: cp1252 -*-\ndef größe(): pass\n".encode("cp1252"),
    ],
)
def test_encodings(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    assert [function["name"] for function in measure_file(str(path))["measured"]] == ["größe"]


@pytest.mark.parametrize(
    "content",
    [
        b"def f(:\n",
        b"print 'x'\n",
        b"  x\n y\n",
        b"x = '",
        b"x\0y\n",
        b"x = '\xff'\n",
        b"# coding: no-such\nx\n",
        b"# coding: hex\nx\n",
        b"# coding: utf-16\nx\n",
        b"\xef\xbb\xbf# coding: latin-1\nx\n",
        b"(" * 100_000,
        b"x = " + b"[" * 5_000 + b"]" * 5_000,
        b"x = " + b"-" * 50_000 + b"1\n",
        b"x = 1" + b"0" * 10_000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_files_that_are_no_python(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    record = measure_file(str(path))
    assert record.pop("error")
    assert record == {"path": str(path), "lines": 0, "functions": 0, "branches": 0, "complexity": 0, "measured": []}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert measure_file(str(tmp_path / "none.py"))["error"].startswith("FileNotFoundError: ")
    assert measure_file(str(tmp_path))["error"].startswith("IsADirectoryError: ")


def test_deep_trees_are_measured() -> None:
    chain = "".join(f"{'elif' if i else 'if'} x == {i}: pass\n" for i in range(90))
    assert complexities("def f():\n" + textwrap.indent(chain, "    ")) == {"f": 91}
    assert complexities("def f():\n    return " + " + ".join(["(a or b)"] * 900)) == {"f": 901}
    nested = "\n".join(" " * depth + f"def f{depth}():" for depth in range(90)) + "\n" + " " * 90 + "if x: pass\n"
    assert max(complexities(nested).values()) == 2
    assert len(complexities(nested)) == 90


def test_warnings_of_the_parser_are_not_passed_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_source("x = '\\d'\nassert (x, 'always true')\n1 is 1\n")


def test_the_files_of_a_tree(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "a/skipped/d.py", "a/__pycache__/e.py", "f.txt", "g.py/h.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "broken.py").symlink_to("nowhere")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = [str(Path(path).relative_to(tmp_path)) for path in source_files(tmp_path, skip=["skipped"])]
    assert found == ["a/c.py", "b.py", "g.py/h.py"]
