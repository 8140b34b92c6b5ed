"""The life of a worker with a fake process and a fake connection: it starts, serves, and ends in each of its ways."""

from __future__ import annotations

import signal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge_py.wire.errors import CANCELLED, NOT_STARTED, ProtocolError
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._config.policies import RecyclePolicy
from snakepit_trio._connections.base import Hello
from snakepit_trio._connections.link import LinkLost
from snakepit_trio._workers.worker_state import WorkerState
from tests.helpers.fake_processes import KILL, TERM, FakeSite, Life, alive


async def test_it_is_ready_when_it_says_so() -> None:
    async with alive(is_ready=False) as life:
        assert (life.worker.state, life.reports.heard) == (WorkerState.STARTING, [])
        life.connection.context.on_ready(Hello([ToolSpec("add")], "3.11"))
        assert (life.worker.state, life.reports.heard) == (WorkerState.READY, ["ready"])
        assert life.process.told == ["ready"]
        assert (list(life.worker.tools), life.worker.python) == (["add"], "3.11")
        life.worker.hurry()


async def test_a_spare_waits_until_it_steps_in() -> None:
    async with alive(is_ready=False) as life:
        life.worker.is_spare = True
        life.connection.context.on_tools([ToolSpec("sub")])
        life.connection.context.on_ready(Hello([ToolSpec("add")], "3.11"))
        assert (life.worker.state, life.reports.heard) == (WorkerState.SPARE, ["spare"])
        assert (life.worker.is_ready, life.worker.is_up, life.worker.was_ready) == (False, True, True)
        life.connection.context.on_tools([ToolSpec("mul")])
        assert (list(life.worker.tools), life.reports.tools) == (["sub", "add", "mul"], {})
        life.worker.step_in("v")
        life.worker.step_in("u")
        assert (life.worker.state, life.reports.heard) == (WorkerState.READY, ["spare", "ready", "stepped in for v"])
        life.worker.hurry()


async def test_a_spare_that_is_drained_ends() -> None:
    async with alive(is_ready=False) as life:
        life.worker.is_spare = True
        life.connection.context.on_ready(Hello())
        life.worker.drain()
        life.worker.step_in("v")
        assert life.worker.state is WorkerState.DRAINING
        life.process.exit(0)
    assert life.reports.heard == ["spare", "leaving", "leaving", "gone with []", "ended 0"]


async def test_a_ping_that_was_not_sent_is_not_missing(autojump_clock: MockClock) -> None:
    async with alive(is_ready=False, ping_interval=1, ping_timeout=1) as life:
        await trio.sleep(1.5)
        life.connection.context.on_ready(Hello())
        await trio.sleep(0.75)
        assert life.worker.health.missed == 0
        await trio.sleep(2)
        assert life.worker.health.missed == 1
        life.worker.hurry()


async def test_goodbye_ends_it(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive() as life:
        life.worker.stop()
        assert life.worker.state is WorkerState.DRAINING
        await wait_all_tasks_blocked()
        assert life.process.told == ["ready", "goodbye"]
        life.process.exit(0)
    assert trio.current_time() == began
    assert life.reports.heard == ["ready", "leaving", "gone with []", "ended 0"]
    assert life.worker.failure is None
    assert life.worker.exit_reason == "worker w was stopped"


async def test_what_does_not_hear_goodbye_gets_signals(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive(TERM) as life:
        life.worker.stop()
    assert life.process.told[:3] == ["ready", "goodbye", TERM]
    assert trio.current_time() - began == pytest.approx(3)
    assert life.reports.heard[-1] == f"ended {-TERM}"
    assert life.worker.failure is None


async def test_what_hears_nothing_is_killed(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive() as life:
        life.worker.stop()
    assert life.process.told[:4] == ["ready", "goodbye", TERM, KILL]
    assert trio.current_time() - began == pytest.approx(6)
    assert life.worker.failure is None, "its pool wanted its end"


async def test_a_protocol_without_goodbye_is_not_waited_for(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive(TERM) as life:
        life.connection.knows_goodbye = False
        life.worker.stop()
    assert life.process.told[:3] == ["ready", "goodbye", TERM]
    assert trio.current_time() == began


async def test_what_is_hurried_is_killed_at_once(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive() as life:
        life.worker.stop()
        life.worker.hurry()
    assert trio.current_time() == began
    assert life.reports.heard[-1] == f"ended {-KILL}"


async def test_it_says_goodbye_to_its_calls(autojump_clock: MockClock) -> None:
    async with alive(TERM) as life:
        call = life.call("add")
        assert life.worker.state is WorkerState.BUSY
        life.worker.stop()
        await wait_all_tasks_blocked()
        assert life.process.told[2:] == ["stop what the host does for add", "cancel 1", "goodbye"]
        life.connection.fail(call, CANCELLED)
        assert life.reports.heard[-1] == ("add", "PoolClosed")
        life.process.exit(0)
    assert "gone with []" in life.reports.heard


async def test_it_dies_before_it_is_ready(autojump_clock: MockClock) -> None:
    async with alive(is_ready=False) as life:
        life.process.last_words = "ValueError: no database"
        life.process.exit(3)
    assert life.failure is not None
    assert life.failure.exit_code == 3
    assert str(life.failure).startswith("worker w could not start: ValueError: no database")
    assert life.reports.heard == ["leaving", "gone with []", "ended 3"]


async def test_it_is_not_ready_in_time(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive(is_ready=False, start_timeout=20) as life:
        pass
    assert "was not ready within 20" in str(life.failure)
    assert trio.current_time() - began == pytest.approx(20)
    assert TERM not in life.process.told
    assert life.process.exit_code == -KILL


async def test_there_is_no_process_for_it() -> None:
    life = Life(FakeSite({KILL}, OSError("no more processes")))
    await life.run()
    assert "could not be started: no more processes" in str(life.failure)
    assert life.worker.exit_reason == "worker w could not be started: no more processes"
    assert life.worker.pid is None


async def test_it_dies_with_its_calls(autojump_clock: MockClock) -> None:
    async with alive() as life:
        life.call("first")
        life.call("second")
        life.process.last_started = 1
        life.process.exit(-signal.SIGSEGV)
    assert life.reports.heard[1:] == ["leaving", "gone with ['first', 'second']", f"ended {-signal.SIGSEGV}"]
    assert life.reports.last_started == 1
    failure = life.reports.failure
    assert failure is not None
    assert (failure.problem, failure.signal) == ("died", signal.SIGSEGV)
    assert not life.worker.is_killed_by_us
    assert life.failure is None, "it had started"


async def test_its_link_ends_first(autojump_clock: MockClock) -> None:
    async with alive() as life:
        life.connection.lose(LinkLost("gone"))
        await trio.sleep(0.1)
        assert life.process.told == ["ready"], "its own exit tells more than a kill"
        life.process.exit(1)
    assert life.reports.failure is not None
    assert (life.reports.failure.problem, life.reports.failure.exit_code) == ("died", 1)


async def test_it_lives_on_without_its_link(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive() as life:
        life.connection.lose(LinkLost("gone"))
    assert trio.current_time() - began == pytest.approx(0.5)
    assert life.reports.failure is not None
    assert life.reports.failure.problem == "closed its link"
    assert life.process.exit_code == -KILL


async def test_who_breaks_the_protocol_is_not_believed(autojump_clock: MockClock) -> None:
    async with alive() as life:
        life.call("add")
        life.process.last_started = 1
        life.connection.lose(ProtocolError("it sent nonsense"))
    assert life.reports.failure is not None
    assert life.reports.failure.problem == "broke the protocol: it sent nonsense"
    assert life.reports.last_started is None
    assert "gone with ['add']" in life.reports.heard


@pytest.mark.parametrize("error", [MemoryError, ValueError])
async def test_memory_that_cannot_be_read_ends_nothing(autojump_clock: MockClock, error: type[Exception]) -> None:
    recycle = RecyclePolicy(max_resident_bytes=2**30, resident_bytes=2**20)
    async with alive(KILL, recycle=recycle, ping_interval=0.5, missed_pings=1000) as life:
        life.process.memory = error
        assert life.worker.resident_bytes() == 0
        await trio.sleep(1.5)
        assert life.worker.state is WorkerState.READY, "each look raised"
        life.process.memory = 2**31
        await trio.sleep(1)
    assert life.reports.failure is not None
    assert life.reports.failure.problem == "was killed: it held 2048 MiB, and may hold 1024 (max_resident_bytes)"


async def test_the_kernel_kills_it_for_want_of_memory(autojump_clock: MockClock) -> None:
    async with alive() as life:
        life.process.is_out_of_memory = True
        life.process.exit(-KILL)
    assert life.reports.failure is not None
    assert life.reports.failure.problem == "was killed by the kernel: out of memory"


async def test_it_is_killed(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive() as life:
        life.call("add")
        life.worker.kill("was killed: it is deaf")
        life.worker.kill("was killed: again")
        assert life.worker.is_killed_by_us
    assert trio.current_time() == began
    assert "goodbye" not in life.process.told
    assert TERM not in life.process.told
    assert life.reports.failure is not None
    assert life.reports.failure.problem == "was killed: it is deaf", "the first reason counts"


async def test_it_does_not_end(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    began = trio.current_time()
    async with alive() as life:
        life.process.ends_by.clear()
        life.call("add")
        life.worker.kill("was killed: it is deaf")
    assert "does not end after SIGKILL" in caplog.text
    assert trio.current_time() - began < 10
    assert life.reports.heard[1:] == ["leaving", "gone with ['add']", "ended None"]


async def test_it_is_drained(autojump_clock: MockClock) -> None:
    async with alive() as life:
        running, waiting = life.call("running"), life.call("waiting")
        life.worker.drain()
        assert life.worker.has_left
        assert not life.worker.is_ready
        assert life.process.told[-2:] == ["recall 1", "recall 3"]
        life.connection.fail(waiting, NOT_STARTED)
        await wait_all_tasks_blocked()
        assert "goodbye" not in life.process.told, "it still has a call"
        life.connection.answer(running)
        await wait_all_tasks_blocked()
        assert life.process.told[-1] == "goodbye"
        life.process.exit(0)
    assert life.reports.heard[:4] == ["ready", "leaving", "returned waiting", ("running", "NoneType")]
    assert life.worker.failure is None


async def test_one_that_gives_its_last_call_back_is_drained(autojump_clock: MockClock) -> None:
    async with alive() as life:
        call = life.call("waiting")
        life.worker.drain()
        life.connection.fail(call, NOT_STARTED)
        await wait_all_tasks_blocked()
        assert life.process.told[-1] == "goodbye"
        life.process.exit(0)


async def test_an_idle_one_is_drained_at_once(autojump_clock: MockClock) -> None:
    async with alive() as life:
        life.worker.drain()
        await wait_all_tasks_blocked()
        assert life.process.told[-1] == "goodbye"
        life.process.exit(0)


async def test_who_answers_no_ping_is_killed(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with alive(ping_interval=10, ping_timeout=1, missed_pings=2) as life:
        await trio.sleep(10.5)
        life.connection.context.on_frame(Frame(Kind.PONG, number=life.connection.pings[-1]))
    assert trio.current_time() - began == pytest.approx(3 * 10 + 1, abs=0.1)  # pings keep to the phase of the start
    assert life.reports.failure is not None
    assert "did not answer 2 pings in a row" in life.reports.failure.problem


async def test_cancelling_its_life_kills_it_and_waits_for_its_end(autojump_clock: MockClock) -> None:
    life = Life(FakeSite(set()))
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run)
            await wait_all_tasks_blocked()
            life.connection.context.on_ready(Hello())
            life.call("add")
            outer.start_soon(life.process.end_soon, 1.0, -KILL)
            nursery.cancel_scope.cancel()
        assert KILL in life.process.told
    assert life.process.exit_code == -KILL
    assert life.process.is_released
    assert life.reports.heard[-2:] == ["gone with ['add']", f"ended {-KILL}"]
