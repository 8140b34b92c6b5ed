"""Stores, launchers and adapters keep their contracts: ours do, and broken ones are found out."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.launcher import Launcher, Site
from snakepit_trio.launchers import Local
from snakepit_trio.testing import InMemory, contract

from .stdio_tools import CANCELS, EXAMPLES, JSON, MSGPACK, WORKER
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


STORES: Final = {
    "memory": contract.store(snakepit.MemoryStore),
    "memory-of-real-time": contract.store(awaited_store, ttl=0.3),
}
LAUNCHERS: Final = {
    "local": contract.launcher(Local),
    "memory": contract.launcher(InMemory),
}
ADAPTERS: Final[dict[str, Sequence[contract.Check]]] = {
    "json": contract.adapter(JSON, **STDIO),
    "json-that-cancels": [contract.adapter(CANCELS, **STDIO).named("an_endless_call_can_be_cancelled")],
    "msgpack": contract.adapter(MSGPACK, **STDIO),
    "four-lines": contract.adapter(snakepit.StdioJson(str(EXAMPLES / "four_lines.py")), [("add", {"a": 2, "b": 3}, 5)]),
    "bridge-0.4": contract.adapter(snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS), **CONTRACT),
    "bridge-0.13": [
        contract.adapter(snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS, contract="0.13"), **CONTRACT).named(
            "many_calls_at_a_time_return_what_is_expected"
        )
    ],
    "hooks": contract.adapter(Polite(WORKER), [("echo", {"words": ["hello", "you"]}, "hello you !")]),
    "link": contract.adapter(OUR_TOOLS, **CONTRACT),
    "showcase": [
        contract.adapter("bridge_py.adapters.showcase:Showcase", **SHOWCASE).named("calls_return_what_is_expected")
    ],
}


def each(contracts: Mapping[str, Sequence[contract.Check]]) -> Any:
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


# Broken ones.


async def is_found_out(check: contract.Check, *says: str) -> None:
    """A check fails, and says what is wrong, and which rule that breaks."""
    with pytest.raises(AssertionError) as caught:
        await check.attempt()
    for text in says:
        assert text in str(caught.value)
    assert f"the rule: {check.rule}" in caught.value.__notes__


class LosesUpdates(snakepit.MemoryStore):
    """Reads, waits, and writes."""

    may_wait = True

    async def update_session(self, session_id: str, change: Any) -> Any:
        session = copy.deepcopy(self._use(session_id))
        await trio.lowlevel.checkpoint()
        self._sessions[session_id] = session
        session.begin()
        result = change(session)
        self.hub.publish(session_id, session.commit())
        return result


class DoesNotUndo(snakepit.MemoryStore):
    async def update_session(self, session_id: str, change: Any) -> Any:
        session = self._use(session_id)
        session.begin()
        try:
            return change(session)
        finally:
            session.commit()


class UndoesTooLittle(snakepit.MemoryStore):
    """Forgets a part of what a session is."""

    async def update_session(self, session_id: str, change: Any) -> Any:
        session = self._use(session_id)
        try:
            return await super().update_session(session_id, change)
        except BaseException:
            session.worker_id = "nobody"
            raise


class IsSilent(snakepit.MemoryStore):
    """Does not tell the hub of changes."""

    async def update_session(self, session_id: str, change: Any) -> Any:
        session = self._use(session_id)
        session.begin()
        try:
            result = change(session)
        except BaseException:
            session.undo()
            raise
        session.commit()
        return result


class IsSilentAtTheEnd(snakepit.MemoryStore):
    def _remove(self, session_id: str) -> None:
        del self._sessions[session_id]
        self._numbers.pop(session_id, None)


class TellsTwice(snakepit.MemoryStore):
    async def update_session(self, session_id: str, change: Any) -> Any:
        heard: list[Any] = []
        self.hub.subscribe(session_id, self, heard.append)
        result = await super().update_session(session_id, change)
        self.hub.unsubscribe(session_id, self)
        for changes in heard:
            self.hub.publish(session_id, changes)
        return result


class HandsOutItsOwn(snakepit.MemoryStore):
    async def get_global_program(self, program_id: str) -> Any:
        return self._global_programs[program_id]


class NeverExpires(snakepit.MemoryStore):
    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=lambda: 1e9)


class DoesNotCountUse(snakepit.MemoryStore):
    def _use(self, session_id: str) -> snakepit.Session:
        session = self._find(session_id)
        if session is None:
            raise snakepit.SessionNotFound(session_id)
        return session


class SaysThatItDoesNotWait(snakepit.MemoryStore):
    async def delete_session(self, session_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        return await super().delete_session(session_id)


class IsTornByCancelling(snakepit.MemoryStore):
    """Waits in the middle of a change."""

    may_wait = True

    async def update_session(self, session_id: str, change: Any) -> Any:
        result = await super().update_session(session_id, change)
        hidden = self._sessions.pop(session_id)
        await trio.lowlevel.checkpoint()
        self._sessions[session_id] = hidden
        return result


class TakesAnIdTwice(snakepit.MemoryStore):
    async def create_session(self, session_id: str | None = None, **options: Any) -> str:
        self._sessions.pop(session_id or "", None)
        return await super().create_session(session_id, **options)


@pytest.mark.parametrize(
    ("broken", "name", "says"),
    [
        (LosesUpdates, "no_update_is_lost", "expected 200, but"),
        (DoesNotUndo, "an_update_that_raises_is_undone", "after an update that raised ValueError"),
        (UndoesTooLittle, "an_update_that_raises_is_undone", "['worker_id']: expected 'w', but 'nobody' came"),
        (IsSilent, "the_hub_is_told_of_each_change", "tells of 4 changes, but it told of []"),
        (IsSilent, "watching_shows_what_happens", "but [('initial', 1)] came"),
        (IsSilent, "a_pool_keeps_its_sessions_in_it", "read by a tool: expected 10, but 2 came"),
        (IsSilentAtTheEnd, "the_hub_is_told_of_the_end", "tells of 2 changes"),
        (IsSilentAtTheEnd, "the_hub_is_told_of_an_expiry", "an expiry"),
        (TellsTwice, "no_change_is_told_of_twice", "tells of 20 changes, but it told of"),
        (HandsOutItsOwn, "what_is_handed_out_is_a_copy", "a global program, after its value was changed by who got it"),
        (NeverExpires, "a_session_expires", "has expired: expected SessionNotFound, but nothing was raised"),
        (DoesNotCountUse, "use_keeps_a_session", "expected that reading keeps a session for its ttl, but it expired"),
        (SaysThatItDoesNotWait, "who_says_that_it_never_waits_never_waits", "but these did: delete_session"),
        (IsTornByCancelling, "a_cancelled_update_is_whole_or_nothing", "SessionNotFound"),
        (TakesAnIdTwice, "an_id_is_taken_once", "expected SessionError, but nothing was raised"),
    ],
)
async def test_a_broken_store_is_found_out(broken: Any, name: str, says: str) -> None:
    await is_found_out(contract.store(broken, patience=0.2).named(name), says)


class Broken(Launcher):
    """A launcher whose processes are like those of another one, but for something."""

    def __init__(self, inner: Launcher, change: type[Process]) -> None:
        self._inner = inner
        self._change = change

    def open(self, config: snakepit.PoolConfig) -> Site:
        site = self._inner.open(config)
        launch = site.launch

        async def launch_broken(worker_id: str) -> Any:
            return self._change(await launch(worker_id))

        site.launch = launch_broken  # type: ignore[method-assign]
        return site


class Process:
    """Like another one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class StartsNothing(Process):
    last_started = 0


class StartsAll(Process):
    last_started = 1 << 60


class LosesExitCodes(Process):
    @property
    def exit_code(self) -> int | None:
        return None if self._inner.exit_code is None else 0


class CannotBeKilled(Process):
    def signal_group(self, number: int) -> None:
        pass


class KillsNoChildren(Process):
    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._inner.pid, number)


class SaysNothing(Process):
    outputs = ()


class NeverEnds(Process):
    """Its end is not noticed."""

    exit_code = None


@pytest.mark.parametrize(
    ("broken", "name", "says"),
    [
        (StartsNothing, "no_call_runs_twice_and_none_is_lost", "no call runs twice, but calls "),
        (StartsNothing, "last_started_is_the_last_call_that_has_started", "last_started while a call runs"),
        (StartsAll, "no_call_runs_twice_and_none_is_lost", "last_started was above them"),
        (LosesExitCodes, "a_killed_worker_is_reported_and_replaced", "expected -9, but 0 came"),
        (CannotBeKilled, "a_killed_worker_is_reported_and_replaced", "after its worker got SIGKILL, but it is"),
        (SaysNothing, "a_worker_that_cannot_start_says_why", "adapter's error in stderr_tail, but ''"),
        (NeverEnds, "workers_end_in_order", "expected [0, 0], but [None, None] came"),
    ],
)
async def test_a_broken_launcher_is_found_out(broken: Any, name: str, says: str, autojump_clock: Any) -> None:
    await is_found_out(contract.launcher(lambda: Broken(InMemory(), broken)).named(name), says)


async def test_a_launcher_that_spares_the_group_is_found_out() -> None:
    check = contract.launcher(lambda: Broken(Local(), KillsNoChildren)).named("what_a_worker_started_dies_with_it")
    await is_found_out(check, "a killed worker had started is gone, but pid")


class Swallows(snakepit.StdioJson):
    def prepare_args(self, name: str, args: Any) -> Any:
        return {}


class Changes(snakepit.StdioJson):
    def prepare_args(self, name: str, args: Any) -> Any:
        args["value"] = "mine"
        return args


class ForgetsToReturn(snakepit.StdioJson):
    def prepare_args(self, name: str, args: Any) -> Any:
        pass

    def process_response(self, name: str, response: Any) -> Any:
        pass


class AllowsAll(snakepit.StdioJson):
    def supported_commands(self) -> Sequence[str]:
        return ["echo"]

    def validate_command(self, name: str, args: Any) -> None:
        pass


class SupportsNothing(snakepit.StdioJson):
    def supported_commands(self) -> Sequence[str]:
        return ["hello"]


class TakesText(snakepit.StdioJson):
    def command_timeout(self, name: str, args: Any) -> Any:
        return "5 s"


class IsNeverThere(snakepit.StdioJson):
    def unavailable(self, python: str) -> str | None:
        return "not today"


class SaysNothingOfItsHooks(Swallows):
    has_a_say = False


@pytest.mark.parametrize(
    ("broken", "name", "says"),
    [
        (Swallows, "calls_return_what_is_expected", "expected 'x', but None came"),
        (Swallows, "calls_return_what_is_expected", "(prepare_args made {} of its arguments)"),
        (Changes, "prepare_args_gives_arguments", "after prepare_args: expected {'value': 'x'}, but {'value': 'mine'}"),
        (ForgetsToReturn, "prepare_args_gives_arguments", "a mapping by parameter names, but None came"),
        (AllowsAll, "what_is_not_supported_is_refused", "expected UnknownTool, but nothing was raised"),
        (SupportsNothing, "supported_commands_are_names", "['echo'] are not"),
        (SupportsNothing, "validate_command_accepts_what_is_right", "expected no error, but UnknownTool"),
        (TakesText, "command_timeout_is_seconds", "expected None or seconds, but '5 s' came"),
        (IsNeverThere, "it_is_available_here", "expected None, but 'not today' came"),
        (SaysNothingOfItsHooks, "hooks_that_are_there_are_asked", "overrides ['prepare_args']: expected True"),
    ],
)
async def test_a_broken_adapter_is_found_out(broken: Any, name: str, says: str) -> None:
    await is_found_out(contract.adapter(broken(WORKER), [("echo", {"value": "x"}, "x")]).named(name), says)


class ClearsAnswers(snakepit.StdioJson):
    def process_response(self, name: str, response: Any) -> Any:
        response.clear()
        return response


@pytest.mark.parametrize(
    ("adapter", "name", "options", "says"),
    [
        (
            ClearsAnswers(WORKER),
            "process_response_gives_what_is_expected",
            {},
            "to which the worker answered ['x'] before process_response: expected ['x'], but [] came",
        ),
        (JSON, "calls_return_what_is_expected", {"calls": [("echo", {"value": 1}, 2)]}, "expected 2, but 1 came"),
        (JSON, "calls_return_what_is_expected", {"calls": [("fail", {"how": "value"}, 2)]}, "ToolError"),
        (JSON, "values_survive", {"echo": ("big", "size"), "values": [3]}, "big(size=3): expected 3, but 'xxx' came"),
        (JSON, "streams_yield_what_is_expected", {"streams": [("count", {"n": 2}, [0])]}, "expected [0], but [0, 1]"),
        (JSON, "an_endless_call_can_be_cancelled", {"endless": ("echo", {})}, "expected CallTimeout, but nothing"),
        (JSON, "a_crash_is_reported_and_healed", {"crash": ("echo", {})}, "expected WorkerCrashed, but nothing"),
        (JSON, "a_tool_that_raises_costs_no_worker", {"fails": ("fail", {"how": "value"}, "aha")}, "with 'aha' in its"),
    ],
)
async def test_a_wrong_worker_is_found_out(adapter: Any, name: str, options: Any, says: str) -> None:
    await is_found_out(
        contract.adapter(adapter, **{"calls": [("echo", {"value": ["x"]}, ["x"])], **options}).named(name), says
    )


# What is left out, and without pytest.


async def test_what_does_not_apply_is_left_out_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    found = contract.launcher(InMemory)
    for name in ("a_tool_that_resists_costs_its_worker", "a_worker_that_was_stopped_is_replaced"):
        with pytest.raises(contract.LeftOut, match="runs_inline"):
            await found.named(name).attempt()
        with pytest.raises(pytest.skip.Exception, match="runs_inline"):
            await found.named(name)()
        assert f"{name} is left out: its site says runs_inline" in caplog.text
    only_here = contract.launcher(Local, is_here=False).named("what_a_worker_started_dies_with_it")
    with pytest.raises(contract.LeftOut, match="is_here=False"):
        await only_here.attempt()


async def test_running_all_at_once() -> None:
    report = await contract.store(snakepit.MemoryStore)[:10].without("values_survive", "texts only").run()
    assert len(report.passed) == 9
    assert str(report) == "9 checks passed, 1 were left out\n  values_survive: texts only"
    with pytest.raises(ExceptionGroup, match="IsSilent breaks [0-9]+ of [0-9]+ rules") as caught:
        await contract.store(IsSilent, patience=0.01).run()
    notes = [note for error in caught.value.exceptions for note in error.__notes__]
    assert any("Tools in workers see and change its variables" in note for note in notes)


@asynccontextmanager
async def opened_store(clock: Callable[[], float]) -> AsyncIterator[snakepit.MemoryStore]:
    yield snakepit.MemoryStore(clock=clock)


@pytest.mark.parametrize("make", [opened_store, awaited_store])
async def test_kinds_of_makers(make: Any) -> None:
    await contract.store(make).named("a_session_lives_until_it_is_deleted")()


async def test_what_is_misused() -> None:
    with pytest.raises(snakepit.UsageError, match="has no check 'nope'; there are: a_new_store"):
        contract.store(snakepit.MemoryStore).named("nope")
    with pytest.raises(snakepit.UsageError, match="give at least one"):
        contract.adapter(JSON, [])
    with pytest.raises(snakepit.UsageError, match="where args is a dict"):
        contract.adapter(JSON, [("echo",)])  # type: ignore[list-item]
    with pytest.raises(AssertionError, match="the maker gave .*: let it give a SessionStore"):
        await contract.store(InMemory)[0].attempt()  # type: ignore[arg-type]


def test_it_needs_no_pytest_and_the_example_of_the_docs_runs() -> None:
    page = (EXAMPLES.parent.parent / "testing.md").read_text()
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AuditedStore(snakepit" in block
    ]
    code = f"import sys\nsys.modules['pytest'] = sys.modules['hypothesis'] = None\n{example}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "checks passed" in done.stdout
