"""Stores, launchers and adapters keep their contracts: ours do, and broken ones are found out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

import snakepit_trio as snakepit
from snakepit_trio.launchers import Local
from snakepit_trio.testing import InMemory, contract

from .stdio_tools import CANCELS, EXAMPLES, JSON, MSGPACK, PERL
from .test_contract import OUR_TOOLS, OWN

STDIO: Final[dict[str, Any]] = {
    "calls": [("echo", {"value": [1, {"a": None}]}, [1, {"a": None}]), ("big", {"size": 5}, "xxxxx")],
    "streams": [("count", {"n": 3}, [0, 1, 2]), ("count", {"n": 0}, [])],
    "echo": ("echo", "value"),
    "fails": ("fail", {"how": "value"}, "no luck"),
    "endless": ("sleep", {}),
    "crash": ("die", {}),
}
CONTRACT: Final[dict[str, Any]] = {
    "calls": [("add", {"a": 2, "b": 3}, 5.0), ("echo", {"value": "x"}, "x")],
    "streams": [("count", {"n": 2}, [{"i": 0}, {"i": 1}])],
    "echo": ("echo", "value"),
    "fails": ("fail", {"message": "boo"}, "boo"),
    "endless": ("slow", {"seconds": 1000}),
    "crash": ("die", {}),
}
SHOWCASE: Final[dict[str, Any]] = {
    "calls": [
        ("add", {"a": 2, "b": 3}, 5),
        ("ping", {"message": "hello"}, lambda result: result["message"] == "hello"),
    ],
    "echo": ("echo", "value"),
}


class Polite(snakepit.StdioJson):
    """An adapter with all hooks."""

    def supported_commands(self) -> Sequence[str]:
        return ["greet"]

    def prepare_args(self, name: str, args: Any) -> Any:
        return {"value": f"Hello {args['whom']}"}

    def process_response(self, name: str, response: Any) -> Any:
        return f"{response}!"

    def command_timeout(self, name: str, args: Any) -> float:
        return 5.0


async def check_each(found: contract.Contract) -> None:
    pass


STORES: Final = {
    "memory": contract.store(snakepit.MemoryStore),
    "memory-of-real-time": contract.store(lambda: snakepit.MemoryStore(), ttl=0.5),
}
LAUNCHERS: Final = {
    "local": contract.launcher(Local),
    "memory": contract.launcher(InMemory),
}
ADAPTERS: Final = {
    "json": contract.adapter(JSON, **STDIO),
    "json-that-cancels": contract.adapter(CANCELS, **STDIO),
    "msgpack": contract.adapter(MSGPACK, **STDIO),
    "four-lines": contract.adapter(
        snakepit.StdioJson(str(EXAMPLES / "four_lines.py")), [("add", {"a": 2, "b": 3}, 5)]
    ),
    "bridge-0.4": contract.adapter(snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS), **CONTRACT),
    "bridge-0.13": contract.adapter(snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS, contract="0.13"), **CONTRACT),
    "link": contract.adapter(OUR_TOOLS, **CONTRACT),
    "showcase": contract.adapter("bridge_py.adapters.showcase:Showcase", **SHOWCASE),
}


def each(contracts: dict[str, contract.Contract]) -> Any:
    found = [pytest.param(check, id=f"{name}-{check}") for name, checks in contracts.items() for check in checks]
    return pytest.mark.parametrize("check", found)


@each(STORES)
async def test_stores(check: contract.Check) -> None:
    await check()


@each(LAUNCHERS)
async def test_launchers(check: contract.Check) -> None:
    await check()


@each(ADAPTERS)
async def test_adapters(check: contract.Check) -> None:
    await check()
