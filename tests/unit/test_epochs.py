"""Epochs of sessions: how they travel, and who is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.contract.statuses import error_of_status, status_of
from bridge_py.wire.errors import StaleEpoch, error_of, fault_of
from snakepit_trio._calls.call import Call
from snakepit_trio._requests.contract_requests import ContractRequests
from snakepit_trio._serving.problems import problem_of
from snakepit_trio.state.epochs import Epochs
from snakepit_trio.state.session import Session


def test_it_arrives_typed_over_every_wire() -> None:
    error = StaleEpoch("stale epoch: session 's' is at epoch 2")
    for arrived in (error_of(fault_of(error)), error_of_status(status_of(error))):
        assert type(arrived) is StaleEpoch
        assert str(arrived) == str(error)
    problem = problem_of(error)
    assert problem.status == 409
    assert b"stale-epoch" in problem.body()


def test_a_change_that_fails_begins_no_epoch() -> None:
    session = Session("s", now=0.0, ttl=None)
    session.begin()
    session.hold("host", 1)
    session.bind("worker")
    session.undo()
    assert (session.epoch, session.host_id, session.worker_id) == (0, None, None)


async def test_an_export_has_the_epoch_and_an_old_one_need_not() -> None:
    store = snakepit.MemoryStore()
    await store.create_session("s")
    await store.update_session("s", lambda session: session.hold("host", 7))
    exported = await store.export_session("s")
    assert exported["epoch"] == 7
    await store.import_session(exported, "t")
    assert ((await store.get_session("t")).epoch, (await store.get_session("t")).host_id) == (7, None)
    del exported["epoch"]
    await store.import_session(exported, "u")
    assert (await store.get_session("u")).epoch == 0
    with pytest.raises(snakepit.SessionError, match="no exported session"):
        await store.import_session({**exported, "epoch": -1}, "v")


@pytest.fixture
async def foreign() -> Any:
    """A store, two foreign workers of one pool, and a call of a session for each."""
    store = snakepit.MemoryStore()
    await store.create_session("s")
    await store.of("s").register_variable("x", value=0)
    services: Any = SimpleNamespace(store=store, note_home=lambda *_: None)
    workers = [ContractRequests(services, f"w-{number}") for number in range(2)]
    calls = [Call("tool", EncodedValue(b"", None), "s", None) for _ in workers]
    for worker, call in zip(workers, calls, strict=True):
        worker.begin(call)
    return store, workers, calls


async def test_a_foreign_worker_that_has_ended_writes_no_more(foreign: Any) -> None:
    store, (first, second), _ = foreign
    late = first.view("s")  # a request that is on its way
    await late.update_variable("x", 1)
    assert (await store.get_session("s")).worker_id == "w-0"
    first.worker_gone()
    with pytest.raises(StaleEpoch, match="worker w-0 has ended"):
        await late.update_variable("x", 2)
    await second.view("s").update_variable("x", 3)
    with pytest.raises(StaleEpoch):
        await first.view("s").delete_variable("x")
    info = await store.get_session("s")
    assert (info.worker_id, info.epoch, await late.get_variable_value("x")) == ("w-1", 2, 3)


async def test_a_foreign_call_that_is_over_writes_no_more(foreign: Any) -> None:
    store, (first, _), (call, _) = foreign
    late = first.view("s")
    first.end(call)
    with pytest.raises(snakepit.SessionError, match="the call is over"):
        await late.update_variable("x", 2)
    assert await store.of("s").get_variable_value("x") == 0


async def test_workers_of_one_host_share_its_epoch(foreign: Any) -> None:
    store, (first, second), _ = foreign
    for number in range(4):
        await (first, second)[number % 2].view("s").update_variable("x", number)
    assert (await store.get_session("s")).epoch == 1


async def test_a_first_read_tells_when_a_call_began(foreign: Any) -> None:
    store, (first, _), _ = foreign
    view = first.view("s")
    await view.get_variable("x")
    await store.update_session("s", lambda session: session.hold("another host", session.epoch + 1))
    with pytest.raises(StaleEpoch, match="at epoch 1, held by worker None of host 'another host'"):
        await view.update_variable("x", 1)
    assert await view.get_variable_value("x") == 0


def test_each_store_object_is_a_host_of_its_own() -> None:
    assert snakepit.MemoryStore().hub.epochs.host_id != snakepit.MemoryStore().hub.epochs.host_id


def test_only_so_many_sessions_are_remembered() -> None:
    epochs = Epochs()
    first = epochs.of("0")
    for number in range(10_001):
        epochs.of(str(number))
    assert epochs.of("0") is not first
    assert len(epochs._tenures) == 10_000
