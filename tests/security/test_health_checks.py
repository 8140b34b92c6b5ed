"""Health checks without the token, where the server wants one."""

from __future__ import annotations

import json
import sys

import pytest
import trio

from bridge_py import http2
from tests.security.test_tokens_and_tls import TOKEN, serving

PROBE = """
import json, sys
import grpc

found = []
with grpc.insecure_channel(sys.argv[1]) as channel:
    for name, size in (("Check", 0), ("Check", 4000), ("Check", 5000), ("Check", 9_000_000), ("List", 0), ("Watch", 0)):
        length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
        body = b"\\x0a" + length + b"x" * size if size else b""
        try:
            found.append(list(channel.unary_stream(f"/grpc.health.v1.Health/{name}")(body, timeout=20))[0].hex())
        except grpc.RpcError as error:
            found.append(error.code().name)
    reflection = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    try:
        found.append(len(list(reflection(iter([b"\\x3a\\x00"]), timeout=20))))
    except grpc.RpcError as error:
        found.append(error.code().name)
print(json.dumps(found))
"""

STAYING = """
import sys, threading
import grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    closed, was_ready = threading.Event(), threading.Event()

    def note(state):
        if state is grpc.ChannelConnectivity.READY:
            was_ready.set()
        elif was_ready.is_set():
            closed.set()

    channel.subscribe(note)
    print(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20).hex(), end=" ")
    print("closed" if closed.wait(30) else "open")
"""


async def test_only_small_health_checks_need_no_token() -> None:
    """Load balancers and probes send none. It opens nothing else, and nobody can make the server keep much by it."""
    async with serving(bridge_token=TOKEN) as (pool, _):
        with trio.fail_after(120):
            done = await trio.run_process([sys.executable, "-c", PROBE, pool.bridge_address], capture_stdout=True)
    refused = "UNAUTHENTICATED"
    expected = ["0801", "NOT_FOUND", "UNAVAILABLE", "UNAVAILABLE", refused, refused, refused]
    assert json.loads(done.stdout) == expected


async def test_health_checks_without_the_token_do_not_keep_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "STRANGER", 0.3)
    async with serving(bridge_token=TOKEN) as (pool, _):
        with trio.fail_after(60):
            done = await trio.run_process([sys.executable, "-c", STAYING, pool.bridge_address], capture_stdout=True)
    assert done.stdout == b"0801 closed\n"
