"""Stores, launchers and adapters keep their contracts: ours do, and broken ones are found out."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

import snakepit_trio as snakepit
from snakepit_trio.launchers import Local
from snakepit_trio.state.sqlite import SqliteStore
from snakepit_trio.testing import InMemory, conformance
from tests.helpers.memory_backend import shared_store
from tests.helpers.redis_stores import redis_store
from tests.helpers.remote_launcher import Remote
from tests.helpers.stdio_tools import CANCELS, EXAMPLES, JSON, MSGPACK, WORKER
from tests.peers.test_grpc_contract import OUR_TOOLS, OWN

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
}


class Polite(snakepit.StdioJson):
    """An adapter with all hooks."""

    def supported_commands(self) -> Sequence[str]:
        return ["echo"]

    def prepare_args(self, name: str, args: Any) -> Any:
        return {"value": [*args["words"], "!"]}

    def process_response(self, name: str, response: Any) -> Any:
        return " ".join(response)

    def command_timeout(self, name: str, args: Any) -> float:
        return 5.0


async def awaited_store() -> snakepit.MemoryStore:
    return snakepit.MemoryStore()


@asynccontextmanager
async def sqlite_store(
    quotas: snakepit.Quotas | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[SqliteStore]:
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteStore(f"{folder}/sessions.db", quotas=quotas, clock=clock, poll=0.01) as store:
            yield store


STORES: Final = {
    "memory": conformance.store(snakepit.MemoryStore),
    "memory-of-real-time": conformance.store(awaited_store, ttl=0.3),
    "shared": conformance.store(shared_store),
    "sqlite": conformance.store(sqlite_store),
}
LAUNCHERS: Final = {
    "local": conformance.launcher(Local),
    "in-memory": conformance.launcher(InMemory),
    "remote": conformance.launcher(Remote, ping_interval=0.2),
}
ADAPTERS: Final[dict[str, Sequence[conformance.Check]]] = {
    "json": conformance.adapter(JSON, **STDIO),
    "json-that-cancels": [conformance.adapter(CANCELS, **STDIO).named("an_endless_call_can_be_cancelled")],
    "msgpack": conformance.adapter(MSGPACK, **STDIO),
    "four-lines": conformance.adapter(
        snakepit.StdioJson(str(EXAMPLES / "four_lines.py")), [("add", {"a": 2, "b": 3}, 5)]
    ),
    "bridge-0.4": conformance.adapter(snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS), **CONTRACT),
    "bridge-0.13": [
        conformance.adapter(snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS, contract="0.13"), **CONTRACT).named(
            "many_calls_at_a_time_return_what_is_expected"
        )
    ],
    "hooks": conformance.adapter(Polite(WORKER), [("echo", {"words": ["hello", "you"]}, "hello you !")]),
    "link": conformance.adapter(OUR_TOOLS, **CONTRACT),
    "showcase": [
        conformance.adapter("bridge_py.adapters.showcase:Showcase", **SHOWCASE).named("calls_return_what_is_expected")
    ],
}


NO_HOOKS: Final = {
    "what_is_not_supported_is_refused",
    "prepare_args_drops_none_that_the_worker_needs",
    "process_response_gives_what_is_expected",
}
UNTYPED: Final = "wrong_arguments_are_refused_by_name"
NOT_NAMED: Final = {
    "streams_yield_what_is_expected",
    "values_survive",
    "a_tool_that_raises_costs_no_worker",
    "an_endless_call_can_be_cancelled",
    "a_crash_is_reported_and_healed",
}
#: What does not apply to which of them: all else must hold.
LEFT_OUT: Final[Mapping[str, set[str]]] = {
    # it takes no quotas
    "memory-of-real-time": {
        "quotas_hold",
        "expired_sessions_leave_their_quota",
        "expired_sessions_leave_their_bytes",
    },
    "in-memory": {  # there are no processes
        "a_cancelled_sync_tool_is_over",
        "a_tool_that_resists_costs_its_worker",
        "a_worker_that_ends_itself_is_reported",
        "a_worker_that_is_never_ready_is_killed",
        "a_worker_that_was_stopped_is_replaced",
        "what_a_worker_started_dies_with_it",
        "output_never_stops_a_worker",
        "the_environment_is_what_the_pool_says",
    },
    "json": NO_HOOKS | {UNTYPED},
    "msgpack": NO_HOOKS | {UNTYPED},
    "four-lines": NO_HOOKS | NOT_NAMED | {UNTYPED, "tools_are_described", "an_unknown_tool_is_refused"},
    "bridge-0.4": NO_HOOKS | {UNTYPED},
    "hooks": NOT_NAMED | {UNTYPED, "what_cannot_be_sent_is_refused"},
    "link": NO_HOOKS,
}


def each(contracts: Mapping[str, Sequence[conformance.Check]]) -> Any:
    found = [pytest.param(name, check, id=f"{name}-{check}") for name, checks in contracts.items() for check in checks]
    return pytest.mark.parametrize(("name", "check"), found)


async def holds(name: str, check: conformance.Check) -> None:
    """A check passes, or is one that does not apply."""
    applies = check.name not in LEFT_OUT.get(name, ())
    if applies:
        await check.attempt()  # `LeftOut` is a failure here
    else:
        with pytest.raises(conformance.LeftOut):
            await check.attempt()


@each(STORES)
async def test_stores(name: str, check: conformance.Check) -> None:
    await holds(name, check)


@pytest.mark.usefixtures("redis")
@each({"redis": conformance.store(redis_store, ttl=0.3)})
async def test_the_store_in_redis(name: str, check: conformance.Check) -> None:
    await holds(name, check)


@each(LAUNCHERS)
async def test_launchers(name: str, check: conformance.Check) -> None:
    await holds(name, check)


@each(ADAPTERS)
async def test_adapters(name: str, check: conformance.Check) -> None:
    await holds(name, check)


# What is left out, and without pytest.


async def test_what_does_not_apply_is_left_out_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    found = conformance.launcher(InMemory)
    for name in ("a_tool_that_resists_costs_its_worker", "a_worker_that_was_stopped_is_replaced"):
        with pytest.raises(conformance.LeftOut, match="runs_inline"):
            await found.named(name).attempt()
        with pytest.raises(pytest.skip.Exception, match="runs_inline"):
            await found.named(name)()
        assert f"{name} is left out: its site says runs_inline" in caplog.text
    only_here = conformance.launcher(Local, is_here=False).named("what_a_worker_started_dies_with_it")
    with pytest.raises(conformance.LeftOut, match="is_here=False"):
        await only_here.attempt()


@asynccontextmanager
async def opened_store(clock: Callable[[], float]) -> AsyncIterator[snakepit.MemoryStore]:
    yield snakepit.MemoryStore(clock=clock)


@pytest.mark.parametrize("make", [opened_store, awaited_store])
async def test_kinds_of_makers(make: Any) -> None:
    await conformance.store(make).named("a_session_lives_until_it_is_deleted")()


async def test_what_is_misused() -> None:
    with pytest.raises(snakepit.UsageError, match="has no check 'nope'; there are: a_new_store"):
        conformance.store(snakepit.MemoryStore).named("nope")
    with pytest.raises(snakepit.UsageError, match="give at least one"):
        conformance.adapter(JSON, [])
    with pytest.raises(snakepit.UsageError, match="where args is a dict"):
        conformance.adapter(JSON, [("echo",)])  # type: ignore[list-item]
    with pytest.raises(AssertionError, match="the maker gave .*: let it give a SessionStore"):
        await conformance.store(InMemory)[0].attempt()  # type: ignore[arg-type]


def test_it_needs_no_pytest_and_the_example_of_the_docs_runs() -> None:
    page = (EXAMPLES.parent.parent / "testing.md").read_text()
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AuditedStore(snakepit" in block
    ]
    code = f"import sys\nsys.modules['pytest'] = sys.modules['hypothesis'] = None\n{example}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "checks passed" in done.stdout
