"""What a session's clients can make the host keep is bounded, whatever they put it into."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from snakepit_trio import AccessRules, MemoryStore, Quotas, SessionStore, SessionView

LARGE = "x" * 1000
MOST = 20_000

FLOODS: dict[str, Callable[[SessionView, int], Awaitable[object]]] = {
    "names": lambda view, n: view.register_variable(f"{LARGE}{n}", "integer", 1),
    "choices": lambda view, n: view.register_variable(f"c{n}", "choice", "a", constraints={"choices": ["a", LARGE]}),
    "owners": lambda view, n: view.register_variable(f"o{n}", "integer", 1, access_rules=AccessRules(owner=LARGE)),
    "metadata of variables": lambda view, n: view.register_variable(f"m{n}", "integer", 1, metadata={"k": LARGE}),
    "metadata of versions": lambda view, n: view.update_variable("v", n, metadata={f"k{n}": LARGE}),
    "metadata of the session": lambda view, n: view.put_metadata(f"k{n}", LARGE),
    "keys of metadata": lambda view, n: view.put_metadata(f"{LARGE}{n}", ""),
    "ids of programs": lambda view, n: view.store_program(f"{LARGE}{n}", 1),
    "programs": lambda view, n: view.store_program(f"p{n}", LARGE),
}


async def _fill(flood: Callable[[SessionView, int], Awaitable[object]], view: SessionView) -> int:
    """Repeat a step until it is refused. Returns how often it was done."""
    for number in range(1000):
        try:
            await flood(view, number)
        except snakepit.QuotaExceeded:
            return number
    pytest.fail("nothing was refused")


@pytest.mark.parametrize("whose", ["bytes", "store_bytes"])
@pytest.mark.parametrize("what", FLOODS)
async def test_everything_that_a_session_holds_counts(what: str, whose: str) -> None:
    quotas = Quotas(bytes=MOST) if whose == "bytes" else Quotas(store_bytes=MOST)
    store = MemoryStore(quotas=quotas)
    view = store.of(await store.create_session("s"))
    await view.register_variable("v", "integer", 0)
    assert 3 <= await _fill(FLOODS[what], view) <= 20
    before = await store.export_session("s")
    with pytest.raises(snakepit.QuotaExceeded, match=f"may hold {MOST}"):
        await FLOODS[what](view, 2000)
    assert await store.export_session("s") == before


async def test_dependencies_and_marks_count() -> None:
    store = MemoryStore(quotas=Quotas(bytes=MOST))
    view = store.of(await store.create_session("s"))
    for number in range(30):
        await view.register_variable(f"v{number}", "integer", 0)

    def depend(session: snakepit.Session) -> None:
        for number in range(1, 30):
            session.add_dependency(f"v{number}", "v0", LARGE)

    def mark(session: snakepit.Session) -> None:
        for number in range(30):
            session.start_optimization(f"v{number}", "me", config={"k": LARGE})

    for change in (depend, mark):
        with pytest.raises(snakepit.QuotaExceeded, match=f"may hold {MOST}"):
            await store.update_session("s", change)


async def test_metadata_of_a_new_session_counts() -> None:
    store = MemoryStore(quotas=Quotas(bytes=MOST))
    with pytest.raises(snakepit.QuotaExceeded):
        await store.create_session("s", metadata={"k": "x" * MOST})
    assert await store.list_sessions() == []


@pytest.mark.parametrize("name", ["", LARGE])
async def test_sessions_themselves_count(name: str) -> None:
    """With their ids, and though they are empty."""
    store = MemoryStore(quotas=Quotas(store_bytes=10_000))
    with pytest.raises(snakepit.QuotaExceeded, match="the store holds .* and may hold 10000"):
        for number in range(11):
            await store.create_session(f"{name}{number}")
    await store.delete_session(f"{name}0")
    await store.create_session(f"{name}again")


async def test_global_programs_count() -> None:
    store = MemoryStore(quotas=Quotas(store_bytes=10_000))
    await store.store_global_program("p", "x" * 9000)
    await store.store_global_program("p", "y" * 9000)  # in the place of the former
    for program_id, program in (("q", LARGE), (LARGE, 1)):
        with pytest.raises(snakepit.QuotaExceeded, match="the store holds"):
            await store.store_global_program(program_id, program)
    await store.delete_global_program("p")
    await store.store_global_program("q", "x" * 9000)


async def test_what_is_removed_counts_no_more() -> None:
    """In every way in which it can go, and after changes that were undone."""
    clock = [0.0]
    store = MemoryStore(clock=lambda: clock[0])
    await store.create_session("gone", ttl=10, metadata={"a": LARGE})
    await store.of("gone").store_program("p", LARGE)
    view = store.of(await store.create_session("s", ttl=None, metadata={"a": "1"}))
    empty = (await view.info()).bytes
    held = store._held
    for name in ("x", "y", "z"):
        await view.register_variable(name, "integer", 1, metadata={"k": LARGE}, constraints={"min": 0})
        await view.update_variable(name, 2, metadata={"l": LARGE})
    await view.add_dependency("y", "x")
    await view.add_dependency("y", "x", LARGE)
    await view.add_dependency("z", "y")
    await view.start_optimization("x", "me", config={"k": LARGE})
    await view.put_metadata("a", LARGE)
    await view.put_metadata("b", LARGE)
    await view.store_program("p", LARGE)
    copy = await store.import_session(await store.export_session("s"), "copy")
    assert (await store.get_session(copy)).bytes == (await view.info()).bytes

    def fails(session: snakepit.Session) -> None:
        session.put_program("q", LARGE)
        session.delete("x")
        raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            await store.update_session("s", fails)
    assert (await store.get_session(copy)).bytes == (await view.info()).bytes
    for name in ("y", "x", "z"):
        await view.delete_variable(name)
    await view.put_metadata("a", "1")
    await store.update_session("s", lambda session: session.delete_metadata("b"))
    await view.delete_program("p")
    assert (await view.info()).bytes == empty
    await store.delete_session(copy)
    assert store._held == held
    clock[0] += 20
    await store.cleanup_expired_sessions()
    await store.delete_session("s")
    assert store._held == 0


async def test_there_are_bounds_by_default() -> None:
    quotas = Quotas()
    assert None not in (quotas.sessions, quotas.variables, quotas.programs, quotas.bytes, quotas.store_bytes)


async def test_the_bounds_can_be_taken_away() -> None:
    store: SessionStore = MemoryStore(quotas=Quotas(sessions=None, bytes=None, store_bytes=None))
    view = store.of(await store.create_session("s"))
    for number in range(100):
        await view.store_program(f"p{number}", LARGE)


# Calls that wait.


async def test_bytes_that_wait_for_workers_are_bounded(tmp_path: Path) -> None:
    """Few calls with large arguments, where many calls may wait."""
    begun = tmp_path / "begun"
    async with snakepit.open_pool(Waiting, workers=1, send_ahead=0, max_queue_bytes=100_000) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "wait", {"path": str(begun)})
            while not begun.exists():
                await trio.sleep(0.01)
            for _ in range(3):
                nursery.start_soon(pool.execute, "size", {"text": "x" * 30_000})
            while pool.get_stats().queued < 3:
                await trio.sleep(0.01)
            problem = (
                "queued=3, queued_bytes=90.*, max_queue_bytes=100000, the call's bytes=30.* larger max_queue_bytes"
            )
            for _ in range(10):
                with pytest.raises(snakepit.PoolSaturated, match=problem):
                    await pool.execute("size", {"text": "x" * 30_000})
            nursery.start_soon(pool.execute, "size", {"text": "small"})
            while pool.get_stats().queued < 4:
                await trio.sleep(0.01)
            begun.unlink()
        assert await pool.execute("size", {"text": "x" * 1_000_000}) == 1_000_000  # it does not wait


class Waiting(BaseAdapter):
    """Tools that wait, and that do not."""

    @tool
    def wait(self, path: str) -> None:
        """Make a file, and wait until it is gone."""
        Path(path).touch()
        while Path(path).exists():
            time.sleep(0.01)

    @tool
    def size(self, text: str) -> int:
        """The length of a text."""
        return len(text)
