"""Changes that come while one is written are written together; cancelling leaves each of them whole or unmade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from snakepit_trio.state.write_groups import WriteGroups


class Writer:
    """Notes what is written, one group at a time. Each write waits for `go`."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.made: list[Any] = []
        self.go = trio.Event()
        self.is_busy = False  # as if another process held the file: waiting for it can be cancelled
        self.fails = False

    async def write(self, changes: Sequence[Any]) -> list[outcome.Maybe[Any]]:
        self.groups.append(list(changes))
        if self.is_busy:
            await trio.sleep_forever()
        with trio.CancelScope(shield=True):  # as a thread
            await self.go.wait()
        if self.fails:
            raise OSError("no disk")
        self.made += changes
        return [outcome.Error(ValueError(each)) if each == "bad" else outcome.Value(each) for each in changes]


class Asking:
    """A task that makes a change."""

    def __init__(self, groups: WriteGroups, change: Any) -> None:
        self._groups = groups
        self._change = change
        self.scope = trio.CancelScope()
        self.came: Any = None

    async def run(self) -> None:
        with self.scope:
            try:
                self.came = await self._groups.make(self._change)
            except Exception as error:
                self.came = error


async def asked(nursery: trio.Nursery, groups: WriteGroups, *changes: Any) -> list[Asking]:
    found = []
    for change in changes:
        found.append(Asking(groups, change))
        nursery.start_soon(found[-1].run)
        await trio.testing.wait_all_tasks_blocked()
    return found


async def test_what_comes_meanwhile_is_written_together_in_order() -> None:
    writer = Writer()
    groups = WriteGroups(writer.write)
    async with trio.open_nursery() as nursery:
        tasks = await asked(nursery, groups, 1, 2, "bad", 3)
        writer.go.set()
    assert writer.groups == [[1], [2, "bad", 3]]
    assert [task.came for task in tasks if task is not tasks[2]] == [1, 2, 3]
    assert isinstance(tasks[2].came, ValueError)


async def test_a_group_has_a_bound() -> None:
    writer = Writer()
    groups = WriteGroups(writer.write)
    async with trio.open_nursery() as nursery:
        tasks = [Asking(groups, number) for number in range(200)]
        for task in tasks:
            nursery.start_soon(task.run)
        writer.go.set()
    assert max(map(len, writer.groups)) <= 64
    assert sorted(writer.made) == sorted(task.came for task in tasks) == list(range(200))


async def test_who_is_cancelled_while_waiting_is_not_written() -> None:
    writer = Writer()
    groups = WriteGroups(writer.write)
    async with trio.open_nursery() as nursery:
        tasks = await asked(nursery, groups, 1, 2, 3)
        tasks[1].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks[1].scope.cancelled_caught
        writer.go.set()
    assert writer.made == [1, 3]


@pytest.mark.parametrize("who", [1, 2])
async def test_who_is_cancelled_while_it_is_written_gets_the_outcome(who: int) -> None:
    writer = Writer()
    groups = WriteGroups(writer.write)
    async with trio.open_nursery() as nursery:
        tasks = await asked(nursery, groups, 0, 1, 2)
        first, writer.go = writer.go, trio.Event()
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        assert writer.groups == [[0], [1, 2]]
        tasks[who].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks[who].came is None
        writer.go.set()
    assert [task.came for task in tasks] == [0, 1, 2]
    assert not tasks[who].scope.cancelled_caught


async def test_who_writes_for_others_can_be_cancelled_before_it_begins() -> None:
    writer = Writer()
    writer.is_busy = True
    groups = WriteGroups(writer.write)
    async with trio.open_nursery() as nursery:
        tasks = await asked(nursery, groups, 1, 2, 3)
        tasks[0].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        tasks[2].scope.cancel()  # it is in the group of the second task now, which has not begun
        await trio.testing.wait_all_tasks_blocked()
        writer.is_busy = False
        writer.go.set()
        tasks[1].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        again = await asked(nursery, groups, 4)
    assert writer.made == [4]
    assert [task.scope.cancelled_caught for task in tasks] == [True] * 3
    assert again[0].came == 4


async def test_a_failure_is_everybodys_and_each_gets_an_error_of_its_own() -> None:
    writer = Writer()
    writer.fails = True
    groups = WriteGroups(writer.write)
    async with trio.open_nursery() as nursery:
        tasks = await asked(nursery, groups, 1, 2, 3)
        writer.go.set()
    assert [str(task.came) for task in tasks] == ["no disk"] * 3
    assert len({id(task.came) for task in tasks}) == 3
    assert writer.made == []
    await groups.idle()
