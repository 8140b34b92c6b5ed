"""The rooms of both packages: the design's tables have all files, and imports go down only, without circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
#: From the top, as the tables of docs/design.md have them. Single files are rooms as well.
ROOMS = {
    "snakepit_trio": [
        *(
            "testing",
            "__main__",
            "_cli",
            "__init__",
            "_public",
            "_pool",
            "_dashboard",
            "_serving",
            "_python",
            "_workers",
            "launchers",
            "_connections",
        ),
        *("_contract", "_requests", "_calls", "_config", "state", "_processes", "telemetry", "_util"),
        *("errors", "variables"),
    ],
    "bridge_py": [
        *(
            "__main__",
            "template",
            "main",
            "command_line",
            "contract",
            "link",
            "http2",
            "tls",
            "adapters",
            "dynamic",
            "__init__",
            "_public",
            "execution",
            "tools",
            "host",
        ),
        *("buffers", "wire", "version", "system", "script"),
    ],
}
#: For types alone: what a launcher gives has a connection, which a configuration knows nothing else of.
UP = {("snakepit_trio._config.config", "snakepit_trio._connections.base")}


def modules(package: str) -> dict[str, Path]:
    """The files of a package, by the names of their modules; those that are generated are left out."""
    paths = [path for path in (ROOT / package).rglob("*.py") if "messages" not in path.parts]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, at any place in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {each if (each := f"{base}.{alias.name}") in known else base for alias in node.names}
    return {each for each in found if each in known and each != name}


def room_of(name: str) -> str:
    """The folder that a module is in, or itself."""
    return name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("package", ROOMS)
def test_imports_go_down_only(package: str) -> None:
    known, order = modules(package), ROOMS[package]
    assert {room_of(name) for name in known} == set(order)
    up = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imports(name, path, known) - {package}
        if order.index(room_of(other)) < order.index(room_of(name)) and (name, other) not in UP
    ]
    assert up == []


def test_no_files_import_each_other_in_a_circle() -> None:
    known = {name: path for package in ROOMS for name, path in modules(package).items()}
    graph = {name: imports(name, path, known) for name, path in known.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(known)  # else it raises CycleError


def rows() -> Iterator[tuple[str, str]]:
    """The rows of the design's tables of rooms: the first cell, and the whole row."""
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            yield line.split("|")[1], line


@pytest.mark.parametrize("package", ROOMS)
def test_the_design_has_every_file(package: str) -> None:
    told = {room: row for rooms, row in rows() for room in re.findall(r"`(\w+)/?`", rooms)}
    missing = [
        name
        for name, path in modules(package).items()
        if (room := room_of(name)) not in ("__init__", "__main__") and path.stem != "__init__"
        if f"`{path.stem}`" not in told[room] and not any(f"`{part}/`" in told[room] for part in name.split(".")[2:])
    ]
    assert missing == []
