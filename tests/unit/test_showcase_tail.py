"""tail_and_analyze: rotation, truncation, half lines, what it reads from lines, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import InvalidArguments, UsageError
from bridge_py.adapters.streams.tail import LONGEST_LINE, Analyzer, Follower, severity_of, tail, timestamp_of
from snakepit_trio.testing import InMemory

TOOL = "tail_and_analyze"
LOGGER = logging.getLogger("test")


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    """Those in it are closed at the end."""
    found: list[Follower] = []
    yield found
    for follower in found:
        follower.close()


@pytest.fixture
def follower(log: Path, followers: list[Follower]) -> Follower:
    """Follows a file that has an old line."""
    log.write_text("old\n")
    followers.append(Follower(str(log), from_start=False, logger=LOGGER))
    return followers[0]


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def test_old_lines_only_if_wanted(log: Path, follower: Follower, followers: list[Follower]) -> None:
    assert follower.read() == []
    followers.append(Follower(str(log), from_start=True, logger=LOGGER))
    assert followers[1].read() == ["old"]


def test_lines_come_whole(log: Path, follower: Follower) -> None:
    append(log, "one\ntwo, half")
    assert follower.read() == ["one"]
    assert follower.read() == []
    append(log, " and whole\r\nthree \xc3".encode("latin-1"))
    assert follower.read() == ["two, half and whole"]
    append(log, b"\xa4\n\xff\n")
    assert follower.read() == ["three \u00e4", "\ufffd"]
    append(log, "the end")
    assert follower.read() == []
    assert follower.rest() == ["the end"]
    assert follower.rest() == []


def test_rotation_by_renaming(log: Path, follower: Follower) -> None:
    append(log, "one\n")
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), "two\nhalf")  # by a program that has it open still
    assert follower.read() == ["one", "two"]
    assert follower.read() == []
    log.write_text("three\n")
    assert follower.read() == ["half"]
    assert follower.read() == ["three"]
    assert (follower.rotations, follower.truncations) == (1, 0)


def test_nothing_is_lost_between_the_last_read_and_the_rotation(log: Path, follower: Follower) -> None:
    assert follower.read() == []
    append(log, "late\n")
    log.rename(log.with_suffix(".1"))
    log.write_text("new\n")
    assert follower.read() + follower.read() + follower.read() == ["late", "new"]


def test_truncation(log: Path, follower: Follower) -> None:
    append(log, "one\nhalf")
    assert follower.read() == ["one"]
    os.truncate(log, 0)
    assert follower.read() == ["half"]
    append(log, "two\n")
    assert follower.read() == ["two"]
    assert (follower.rotations, follower.truncations) == (0, 1)


def test_a_file_that_comes_later(tmp_path: Path, followers: list[Follower]) -> None:
    path = tmp_path / "later"
    follower = Follower(str(path), from_start=False, logger=LOGGER)
    followers.append(follower)
    assert follower.read() == []
    path.write_text("one\n")
    assert follower.read() == ["one"]


def test_endless_lines_come_in_pieces(log: Path, follower: Follower) -> None:
    append(log, b"x" * (3 * LONGEST_LINE))
    pieces = [line for _ in range(60) for line in follower.read()]
    assert all(LONGEST_LINE <= len(piece) < 2 * LONGEST_LINE for piece in pieces)
    assert len("".join(pieces + follower.rest())) == 3 * LONGEST_LINE


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no regular file"):
        Follower(str(tmp_path), from_start=True, logger=LOGGER)


@pytest.mark.parametrize(
    ("line", "severity", "timestamp"),
    [
        ("2025-01-20T15:30:45 ERROR no INFO", "ERROR", "2025-01-20T15:30:45"),
        ("2025-01-20 15:30:45,123 [WARNING] disk", "WARN", "2025-01-20T15:30:45.123000"),
        ("[2025-01-20T15:30:45.5+01:00] CRITICAL: heat", "FATAL", "2025-01-20T15:30:45.500000+01:00"),
        ('::1 - - [20/Jan/2025:15:30:45 +0000] "GET /"', "UNKNOWN", "2025-01-20T15:30:45+00:00"),
        ("2025-13-40T99:30:45 FATAL clock", "FATAL", None),
        ("an error, INFORMATION", "UNKNOWN", None),
    ],
)
def test_severity_and_time(line: str, severity: str, timestamp: str | None) -> None:
    assert (severity_of(line), timestamp_of(line)) == (severity, timestamp)


def test_context_and_the_first_pattern_that_fits() -> None:
    analyzer = Analyzer([r"b\d", "b"], context_lines=2)
    found = [chunk for line in ("a1", "a2", "a3", "b1", "bb") if (chunk := analyzer.take(line))]
    assert [chunk["pattern_matched"] for chunk in found] == [r"b\d", "b"]
    assert [chunk["context"] for chunk in found] == [["a2", "a3"], ["a3", "b1"]]
    assert [chunk["line_number"] for chunk in found] == [4, 5]
    assert analyzer.totals()["matches_by_pattern"] == {r"b\d": 1, "b": 1}


def test_lines_without_matches_do_not_keep_it_from_stopping(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_text("dull\n" * 100_000)
    seen = []
    take = Analyzer.take
    monkeypatch.setattr(Analyzer, "take", lambda self, line: seen.append(line) or take(self, line))  # type: ignore[func-returns-value]

    async def main() -> None:
        chunks = tail(str(log), ["x"], 3, None, None, True, 0.1, LOGGER)
        waiting = asyncio.ensure_future(anext(chunks))
        while not seen:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert len(seen) < 100_000


def test_a_line_that_comes_in_parts_is_no_idle_time(log: Path) -> None:
    async def follow() -> list[Any]:
        tailed = tail(str(log), ["E"], 0, 1.0, None, True, 0.05, LOGGER)
        found = [asyncio.create_task(_list(tailed))]
        for _ in range(8):
            append(log, "part ")
            await asyncio.sleep(0.3)
        append(log, "E\n")
        return list(await found[0])

    log.write_text("")
    match, totals = asyncio.run(follow())
    assert (match["log_line"], totals["reason"]) == ("part " * 8 + "E", "idle")


async def _list(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


def test_it_ends_when_the_log_is_idle(log: Path) -> None:
    log.write_text("ERROR one\nERROR without an end")

    async def main() -> tuple[list[dict[str, Any]], float]:
        async with snakepit.open_pool(workers=1, launcher=InMemory(), ping_interval=10**6) as pool:
            began = trio.current_time()
            arguments = {"log_path": str(log), "patterns": ["ERROR"], "from_start": True, "idle_seconds": 3600.0}
            async with pool.stream(TOOL, {**arguments, "poll_interval": 60.0}, timeout=10**5) as chunks:
                return [chunk async for chunk in chunks], trio.current_time() - began

    found, seconds = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [chunk.get("log_line") for chunk in found] == ["ERROR one", "ERROR without an end", None]
    assert found[-1]["reason"] == "idle"
    assert 3600 <= seconds < 3800


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("patterns", ["fine", "("], r"patterns\[1\] '\(' is no regular expression"),
        ("patterns", [], "patterns is empty"),
        ("context_lines", -1, "context_lines=-1 must be 0 or more"),
        ("max_matches", 0, "max_matches=0 must be 1 or more"),
        ("poll_interval", 0.0, "poll_interval=0.0"),
    ],
)
async def test_wrong_arguments_are_named(parameter: str, value: Any, message: str) -> None:
    async with snakepit.open_pool(workers=1, launcher=InMemory()) as pool:
        with pytest.raises(InvalidArguments, match=message) as caught:
            async with pool.stream(TOOL, {"log_path": "log", "patterns": ["x"], parameter: value}) as chunks:
                await anext(chunks)
        assert caught.value.parameter == parameter
