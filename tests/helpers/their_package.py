"""A package of somebody else, as pip would install it: modules, and a dist-info with entry points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

MODULES: Final = {
    "__init__": "",
    "values": """
from decimal import Decimal


class Money:
    def __init__(self, amount: str) -> None:
        self.amount = Decimal(amount)
""",
    "codec": """
from bridge_py import register_codec
from .values import Money

register_codec(Money, "their-money", lambda money: str(money.amount), Money)
""",
    "tools": """
from bridge_py import BaseAdapter, tool


class Till(BaseAdapter):
    @tool
    def twice(self, money):
        return type(money)(str(2 * money.amount))

    @tool
    def add(self, a: int, b: int) -> int:
        return a + b
""",
    "hosts": """
from snakepit_trio import GrpcPython, MemoryStore
from snakepit_trio.launchers import Local

PROGRAM = GrpcPython("their_money.tools:Till")
opened = []


class Counting(Local):
    def open(self, config):
        opened.append(config.name)
        return super().open(config)


class Store(MemoryStore):
    pass


shared = Store()
""",
    "broken": "import no_such_module\n",
    "program": "raise SystemExit(3)\n",
    "needy": """
from snakepit_trio import MemoryStore


class Store(MemoryStore):
    def __init__(self, address):
        super().__init__()
""",
}
ENTRIES: Final = {
    "snakepit.adapters": {"till": "their_money.tools:Till", "program": "their_money.hosts:PROGRAM"},
    "snakepit.codecs": {"money": "their_money.codec", "function": "their_money.values:Money", "odd": "their money!"},
    "snakepit.stores": {
        "theirs": "their_money.hosts:Store",
        "shared": "their_money.hosts:shared",
        "wrong": "their_money.values:Money",
        "needy": "their_money.needy:Store",
    },
    "snakepit.launchers": {
        "counting": "their_money.hosts:Counting",
        "broken": "their_money.broken:Launcher",
        "program": "their_money.program:Launcher",
        "nothing": ":Launcher",
    },
}


def install(folder: Path, name: str = "their-money", entries: Mapping[str, Mapping[str, str]] = ENTRIES) -> None:
    """Put the package into a folder that is, or will be, on the path."""
    code = folder / "their_money"
    code.mkdir(parents=True, exist_ok=True)
    for module, text in MODULES.items():
        (code / f"{module}.py").write_text(text)
    about = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = list[str]()
    for group, found in entries.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in found.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
