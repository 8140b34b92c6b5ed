"""The contract suite has teeth: stores, launchers and adapters that are broken in some way are found out."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._config.config import Launcher, Site
from snakepit_trio._processes.registry import FOLDER_VARIABLE
from snakepit_trio.launchers import Local
from snakepit_trio.testing import InMemory, conformance
from tests.helpers.stdio_tools import JSON, WORKER


async def is_found_out(check: conformance.Check, *says: str) -> None:
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
    await is_found_out(conformance.store(broken, patience=0.2).named(name), says)


class Broken(Launcher):
    """A launcher whose processes are like those of another one, but for something."""

    def __init__(self, inner: Launcher, change: type[Process]) -> None:
        self._inner = inner
        self._change = change

    def open(self, config: snakepit.PoolConfig) -> Site:
        site = self._inner.open(config)
        launch = site.launch

        async def launch_broken(worker_id: str, number: int) -> Any:
            return self._change(await launch(worker_id, number))

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
    """Kills the keeper that would end them; the worker itself ends with it."""

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._inner._process.keeper.pid, signal.SIGKILL)

    async def wait(self) -> None:
        await self._inner._process.keeper.until_reaped()


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
    await is_found_out(conformance.launcher(lambda: Broken(InMemory(), broken)).named(name), says)


async def test_a_launcher_that_spares_the_group_is_found_out() -> None:
    check = conformance.launcher(lambda: Broken(Local(), KillsNoChildren)).named("what_a_worker_started_dies_with_it")
    await is_found_out(check, "a killed worker had started is gone, but pid")
    # They are nobody's children any more: the leak check does not see them.
    mine = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST", FOLDER_VARIABLE)}
    with trio.fail_after(60):  # a process that was killed may take a moment to go
        while any(mine.items() <= environment.items() for environment in _environments()):
            await trio.sleep(0.01)


def _environments() -> list[dict[str, str]]:
    """Those of all other processes that live."""
    found = psutil.process_iter(["pid", "status", "environ"])
    infos = [each.info for each in found if each.pid != os.getpid()]
    return [each["environ"] or {} for each in infos if each["status"] != psutil.STATUS_ZOMBIE]


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
    await is_found_out(conformance.adapter(broken(WORKER), [("echo", {"value": "x"}, "x")]).named(name), says)


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
        conformance.adapter(adapter, **{"calls": [("echo", {"value": ["x"]}, ["x"])], **options}).named(name), says
    )


async def test_running_all_at_once() -> None:
    report = await conformance.store(snakepit.MemoryStore)[:10].without("values_survive", "texts only").run()
    assert len(report.passed) == 9
    assert str(report) == "9 checks passed, 1 were left out\n  values_survive: texts only"
    with pytest.raises(ExceptionGroup, match="IsSilent breaks [0-9]+ of [0-9]+ rules") as caught:
        await conformance.store(IsSilent, patience=0.01).run()
    notes = [note for error in caught.value.exceptions for note in error.__notes__]
    assert any("Tools in workers see and change variables of the store" in note for note in notes)
