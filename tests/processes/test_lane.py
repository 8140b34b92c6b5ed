"""Calls go through the lane if there is one, else through the channel, with the same outcome."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._connections.lane import Lane
from tests.helpers.workers import TOOLS

LANES = pytest.mark.parametrize("lane", [True, False])


@LANES
async def test_calls_take_the_lane_if_there_is_one(lane: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = 0, Lane._read

    def count(self: Lane) -> None:
        nonlocal reads
        reads += 1
        read(self)

    monkeypatch.setattr(Lane, "_read", count)
    async with snakepit.open_pool(TOOLS, workers=1, lane=lane, ping_interval=3600) as pool:
        for _ in range(10):
            assert await pool.execute("add", {"a": 1}) == 2
        assert (reads >= 10) if lane else (reads == 0)


@LANES
async def test_what_no_pipe_holds_arrives_both_ways_at_once(lane: bool) -> None:
    texts = [chr(97 + number) * 3_000_000 for number in range(6)]
    async with snakepit.open_pool(workers=1, lane=lane, shared_memory=0) as pool:
        found: dict[str, Any] = {}

        async def echo(text: str) -> None:
            found[text[0]] = (await pool.execute("echo", {"value": text}))["value"]

        async with trio.open_nursery() as nursery:
            for text in texts:
                nursery.start_soon(echo, text)
    assert [found[text[0]] for text in texts] == texts
