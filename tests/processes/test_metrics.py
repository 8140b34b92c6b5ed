"""The metrics of pools: what they count, and that Prometheus' own parsers read them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

import httpx
import numpy as np
import prometheus_client
import pytest
import trio
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

import snakepit_trio as snakepit
from snakepit_trio.telemetry.tallies import MOST_NAMES, OTHER, Tallies
from snakepit_trio.testing import InMemory
from tests.helpers.http_server import hypercorn_for
from tests.helpers.tools import Tools
from tests.helpers.traced_tools import Tools as Dying

read_plain: Any = parser.text_string_to_metric_families
read_openmetrics: Any = openmetrics_parser.text_string_to_metric_families
TOKEN = "a-token-of-enough-characters"
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values_of(families: Iterable[Any]) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def read(pool: snakepit.Pool) -> Values:
    """The metrics by both parsers, which must agree."""
    plain = values_of(read_plain(pool.metrics.exposition()))
    both = values_of(read_openmetrics(pool.metrics.exposition(openmetrics=True)))
    memory = "snakepit_worker_resident_memory_bytes"
    assert {key: value for key, value in plain.items() if key[0] != memory} == {
        key: value for key, value in both.items() if key[0] != memory
    }
    return plain


def of(values: Values, name: str, **labels: str) -> float:
    return values[f"snakepit_{name}", frozenset({"pool": "pool", **labels}.items())]


async def test_calls_are_counted_and_measured() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=2) as pool:
            await pool.execute("add", {"a": 0, "b": 0})
            read(pool)  # from here on
            for number in range(3):
                await pool.execute("add", {"a": number, "b": number})
            async with pool.stream("count", {"n": 5}) as chunks:
                assert [chunk async for chunk in chunks] == list(range(5))
            with pytest.raises(snakepit.UnknownTool):
                await pool.execute("missing")
            found = read(pool)
    assert of(found, "calls_submitted_total") == 6
    assert of(found, "calls_total", outcome="succeeded") == 5
    assert of(found, "calls_total", outcome="failed") == 1
    for name in ("queue_seconds", "tool_seconds", "duration_seconds", "argument_bytes", "result_bytes"):
        assert of(found, f"call_{name}_count", tool="add") == 3
    assert of(found, "call_tool_seconds_sum", tool="add") <= of(found, "call_duration_seconds_sum", tool="add")
    assert of(found, "call_argument_bytes_sum", tool="add") > 0
    assert of(found, "call_duration_seconds_count", tool="count") == 1
    assert of(found, "call_duration_seconds_bucket", tool="add", le="+Inf") == 3
    assert of(found, "call_duration_seconds_count", tool="missing") == 1


async def test_the_bytes_of_large_values_count() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:
            assert pool.metrics
            assert await pool.run(len, np.ones(1_000_000)) == 1_000_000
            assert len(await pool.execute("make_bytes", {"size": 3_000_000})) == 3_000_000
            found = read(pool)
    assert of(found, "call_argument_bytes_sum", tool="builtins:len") >= 8_000_000
    assert of(found, "call_result_bytes_sum", tool="make_bytes") >= 3_000_000


async def test_gauges_are_of_the_moment() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pool.execute, "sleep", {"seconds": 60})
            while pool.get_stats().busy < 1 or pool.get_stats().running < 1:
                await trio.sleep(0.01)
            async with pool.session():
                found = read(pool)
            stats = pool.get_stats()
            nursery.cancel_scope.cancel()
        assert (of(found, "queued_calls"), of(found, "running_calls")) == (stats.queued, stats.running)
        assert stats.queued + stats.running == 3
        assert of(found, "workers", state="busy") == of(found, "workers_wanted") == of(found, "sessions") == 1
        assert of(found, "workers", state="ready") == 0
        assert of(found, "worker_resident_memory_bytes", worker="0") > 1_000_000


async def test_crashes_and_restarts_are_counted() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Dying, workers=1) as pool:
            with pytest.raises(snakepit.WorkerCrashed):
                await pool.execute("dies")
            await pool.await_ready()
            found = read(pool)
    assert of(found, "calls_total", outcome="crashed") == 1
    assert of(found, "worker_restarts_total") == 1


async def test_any_thread_may_collect_and_also_afterwards() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
            registry = prometheus_client.CollectorRegistry(auto_describe=True)
            registry.register(pool.metrics)
            with pytest.raises(ValueError, match="Duplicate"):
                registry.register(pool.metrics)
            text = await trio.to_thread.run_sync(prometheus_client.generate_latest, registry)
            assert text.decode() == pool.metrics.exposition()
            found: list[str] = []

            async def in_another_run() -> None:
                found.append(pool.metrics.exposition())

            other = threading.Thread(target=trio.run, args=(in_another_run,))
            other.start()
            await trio.to_thread.run_sync(other.join)
            assert found == [text.decode()]
    assert of(read(pool), "workers_wanted") in (0, 1)


def test_they_can_be_read_when_the_run_is_over() -> None:
    async def main() -> snakepit.Pool:
        async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
            await pool.execute("add", {"a": 1, "b": 1})
            assert pool.metrics
        return pool

    pool = trio.run(main)
    assert of(read(pool), "calls_total", outcome="succeeded") == 1
    thread = threading.Thread(target=pool.metrics.exposition)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


async def test_who_does_not_ask_pays_nothing() -> None:
    async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
        assert not pool.events.is_heard
        assert pool.metrics
        assert pool.events.is_heard


def test_names_are_bounded() -> None:
    tallies = Tallies()
    for number in range(MOST_NAMES + 50):
        tallies.of(f"tool{number}").total.add(1)
    tallies.of("x" * 10_000).total.add(1)
    found = {name: tally.total.buckets()[-1][1] for name, tally in tallies}
    assert len(found) == MOST_NAMES + 1
    assert found[OTHER] == 51
    assert found["tool0"] == 1


async def test_odd_names_are_escaped() -> None:
    odd = 'a"b\\c\nd{}='
    async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
        tally = pool.metrics.calls.of(odd)
        tally.total.add(0.1)
        key = "snakepit_call_duration_seconds_count", frozenset({"pool": "pool", "tool": odd}.items())
        assert read(pool)[key] == 1


async def test_an_app_serves_them() -> None:
    with trio.fail_after(60):
        async with (
            snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool,
            hypercorn_for(pool.metrics_app(token=TOKEN)) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            assert (await client.get("/metrics")).status_code == 401
            client.headers["authorization"] = f"Bearer {TOKEN}"
            plain = await client.get("/metrics")
            assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert of(values_of(read_plain(plain.text)), "workers_wanted") == 1
            accept = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            both = await client.get("/", headers={"accept": accept})
            assert both.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
            assert of(values_of(read_openmetrics(both.text)), "workers_wanted") == 1
            for odd in ("application/openmetrics-text; version=x", "text/plain;version=;;", ",,;=", "é"):
                assert (await client.get("/", headers=[(b"accept", odd.encode())])).status_code == 200
            assert (await client.post("/")).status_code == 405
            assert (await client.head("/")).content == b""
            assert (await client.get("/", headers={"host": "evil.example"})).status_code == 421


async def test_the_app_of_tools_serves_them_if_asked_to() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
            for has_metrics, status in ((False, 404), (True, 200)):
                async with (
                    hypercorn_for(pool.asgi_app(metrics=has_metrics)) as port,
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
                ):
                    assert (await client.get("/metrics")).status_code == status
                    assert (await client.post("/metrics")).status_code == (405 if status == 200 else 404)


async def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "snakepit_trio.telemetry.prometheus", raising=False)
    async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
        with pytest.raises(snakepit.UsageError, match=r"pip install 'snakepit-trio\[prometheus\]'"):
            assert pool.metrics
