"""The link under floods of HTTP/2 frames: what the host keeps, and how long its loop stands still.

The attacker is a worker that reads nothing; or a neighbour, who reaches a worker's socket before its host does.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import http2
from snakepit_trio._connections.grpc_link import GrpcLink
from tests.helpers.hostile import LONGEST, ROOT, counted_turns, open_hostile
from tests.security.test_other_users import TOOLS, command

MOST = 100 * 1024 * 1024  # bytes that the host may grow by


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pings", "its channel is closed: it sent more than 1000 PingReceived and the like, at more than 100 a second"),
        ("settings", "its channel is closed: it sent more than 1000 RemoteSettingsChanged and the like"),
        ("priorities", "its channel is closed: it sent more than 1000 PriorityUpdated and the like"),
        ("unknowns", "its channel is closed: it sent more than 1000 UnknownFrameReceived and the like"),
        ("unknowns_late", "its channel is closed: it sent more than 1000 UnknownFrameReceived and the like"),
        (
            "empties",
            "its channel is closed: it sent more than 1000 frames that are empty, or of requests that are over",
        ),
        ("odd_trailers", "its channel is closed: it sent what cannot be read .UnicodeDecodeError"),
        ("goaways", "closed its link"),
        ("resets", "closed its link"),
        ("endless_trailers", "closed its link"),
        ("large_trailers", "closed its link"),
        ("pushes", "its channel is closed: it sent more than 1000 PushedStreamReceived and the like"),
    ],
)
async def test_a_flood_of_frames_costs_the_worker(how: str, message: str) -> None:
    resident = psutil.Process().memory_info().rss
    async with open_hostile(f"http2_{how}") as pool, counted_turns() as turns:
        with trio.fail_after(60), pytest.raises(snakepit.WorkerCrashed, match=message):
            await pool.execute("attack", timeout=50)
    grown = psutil.Process().memory_info().rss - resident
    turns.tell(f"{how}: the host grew by {grown:,} bytes")
    assert grown < MOST
    assert turns.own < LONGEST


@pytest.mark.parametrize("how", ["tinies", "windows"])
async def test_a_flood_that_http2_allows_slows_nobody(how: str) -> None:
    resident = psutil.Process().memory_info().rss
    async with open_hostile(f"http2_{how}") as pool, counted_turns() as turns:
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("attack", timeout=5)
        grown = psutil.Process().memory_info().rss - resident
    turns.tell(f"{how}: the host grew by {grown:,} bytes")
    assert grown < MOST
    assert turns.own < LONGEST
    assert turns.count > 5


@pytest.mark.parametrize("attack", ["pings", "settings", "unknowns_late", "odd_headers", "streams"])
async def test_a_flood_at_the_socket_of_a_worker_harms_nobody(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: dict[str, Any] = {}
    converse: Callable[[GrpcLink], Coroutine[Any, Any, None]] = GrpcLink._converse

    async def attack_first(link: GrpcLink) -> None:
        words = command(os.getuid(), attack, f"unix:{link._address}")
        done = await asyncio.to_thread(subprocess.run, words, cwd=ROOT, check=True, capture_output=True)
        reached.update(json.loads(done.stdout))
        await converse(link)

    monkeypatch.setattr(GrpcLink, "_converse", attack_first)
    async with snakepit.open_pool(TOOLS, workers=1, start_timeout=60) as pool:
        assert reached["closed"], reached
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3


async def test_answers_that_a_peer_does_not_read_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each other bound is met long before this one, so they are taken away here."""
    monkeypatch.setattr(http2, "MAX_CONTROLS", 1 << 40)
    resident = psutil.Process().memory_info().rss
    async with open_hostile("http2_pings") as pool:
        message = "it sent more than 16777216 bytes of answers that the peer does not read"
        with trio.fail_after(120), pytest.raises(snakepit.WorkerCrashed, match=message):
            await pool.execute("attack", timeout=100, retries=0)
    assert psutil.Process().memory_info().rss - resident < MOST


async def test_a_worker_that_breaks_a_rule_and_does_not_read_is_ended() -> None:
    """Its channel is full, so that nothing more can be sent: not even that the link ends."""
    async with open_hostile("channel_deaf", missed_pings=1000, concurrency=2) as pool:

        async def call(text: str) -> None:
            with trio.fail_after(60), pytest.raises(snakepit.WorkerCrashed, match="its channel is broken"):
                await pool.execute("attack", {"text": text}, timeout=50)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "")
            await trio.sleep(0.5)
            nursery.start_soon(call, "x" * 30_000_000)
