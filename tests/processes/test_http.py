"""The HTTP app with real workers: what each request is answered with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from openapi_spec_validator import validate

import snakepit_trio as snakepit
from tests.helpers.http_server import events_of
from tests.helpers.progress_tools import Tools as ProgressTools
from tests.helpers.state_tools import StateTools
from tests.helpers.tools import Tools

TOKEN = "a-token-of-enough-characters"


def client_of(app: Any, **settings: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", **settings)


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as opened:
            yield opened  # noqa: ASYNC119


Answer = tuple[int, Any]


async def answers(client: httpx.AsyncClient, cases: list[tuple[str, str, dict[str, Any], int, str]]) -> None:
    """Make requests and check each status, the name of its problem, and that it is a problem by RFC 9457."""
    for method, path, options, status, name in cases:
        response = await client.request(method, path, **options)
        assert response.status_code == status, (method, path, options, response.text)
        if status >= 400 and method != "HEAD":
            assert response.headers["content-type"] == "application/problem+json"
            problem = response.json()
            assert problem["type"] == f"urn:snakepit-trio:problem:{name}", response.text
            assert (problem["status"], bool(problem["title"]), bool(problem["detail"])) == (status, True, True)


def body(text: bytes, **headers: str) -> dict[str, Any]:
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {"content": text, "headers": sent}


async def test_each_refusal_has_its_status(pool: snakepit.Pool) -> None:
    good = b'{"a": 1}'
    async with client_of(pool.asgi_app(max_body_bytes=1000, sessions=False)) as client:
        await answers(
            client,
            [
                ("POST", "/tools/add", body(good), 200, ""),
                ("POST", "/tools/pid", body(b""), 200, ""),
                ("POST", "/tools/add", body(b'{"a": tru}'), 400, "bad-json"),
                ("POST", "/tools/add", body(b'{"a": 1'), 400, "bad-json"),
                ("POST", "/tools/add", body(b'{"a": "\xff"}'), 400, "bad-json"),
                ("POST", "/tools/add", body(b'{"a": "\\ud800"}'), 400, "bad-json"),
                ("POST", "/tools/add", body(b'{"a": NaN}'), 400, "bad-json"),
                ("POST", "/tools/add", body(b"[" * 900), 400, "bad-json"),
                ("POST", "/tools/add", body(b"[1]"), 422, "invalid-arguments"),
                ("POST", "/tools/add", body(b"{}"), 422, "invalid-arguments"),
                ("POST", "/tools/add", body(b'{"a": "x"}'), 422, "invalid-arguments"),
                ("POST", "/tools/add", body(b'{"a": 1, "c": 2}'), 422, "invalid-arguments"),
                ("POST", "/tools/ad", body(good), 404, "unknown-tool"),
                ("POST", "/tools/snakepit:run", body(good), 404, "unknown-tool"),
                ("POST", "/tools/", body(good), 404, "not-found"),
                ("POST", "/elsewhere", body(good), 404, "not-found"),
                ("PUT", "/tools/add", body(good), 405, "wrong-method"),
                ("POST", "/tools", body(good), 405, "wrong-method"),
                ("OPTIONS", "/livez", {}, 405, "wrong-method"),
                ("POST", "/tools/add", {"content": good}, 415, "not-json"),
                ("POST", "/tools/add", {"data": {"a": "1"}}, 415, "not-json"),
                ("POST", "/tools/add", body(good, content_type="text/plain"), 415, "not-json"),
                ("POST", "/tools/add", body(good, content_type="application/json; charset=latin-1"), 415, "not-json"),
                ("POST", "/tools/add", body(good, content_encoding="gzip"), 415, "not-json"),
                ("POST", "/tools/add", body(good, accept="text/html"), 406, "not-acceptable"),
                ("POST", "/tools/count", body(b'{"n": 1}', accept="application/json"), 406, "not-acceptable"),
                ("POST", "/tools/add", body(b'"' + b"x" * 1000 + b'"'), 413, "too-large"),
                ("POST", "/tools/add", body(good, request_timeout="soon"), 400, "bad-header"),
                ("POST", "/tools/add", body(good, request_timeout="0"), 400, "bad-header"),
                ("POST", "/tools/add", body(good, call_priority="101"), 400, "bad-header"),
                ("POST", "/tools/add", body(good, session_id="mine"), 400, "bad-header"),
                ("POST", "/tools/sleep", body(b'{"seconds": 60}', request_timeout="0.2"), 504, "timeout"),
                ("POST", "/tools/fail", body(b'{"text": "no"}'), 500, "tool-error"),
                ("POST", "/tools/exit", body(b'{"code": 3}'), 502, "worker-crashed"),
                ("HEAD", "/nowhere", {}, 404, ""),
            ],
        )


async def test_problems_say_what_to_do(pool: snakepit.Pool) -> None:
    async with client_of(pool.asgi_app()) as client:
        bad = (await client.post("/tools/add", **body(b'{"a":\n tru}'))).json()
        assert bad["position"] == {"byte": 11, "line": 2, "column": 6}
        unknown = (await client.post("/tools/ad", json={})).json()
        assert unknown["detail"] == "no tool 'ad'; did you mean 'add'?"
        unfit = (await client.post("/tools/add", json={"a": "x"})).json()
        assert unfit["errors"][0]["pointer"] == "#/a"
        raised = (await client.post("/tools/fail", json={"text": "no"})).json()
        assert raised["exception"] == "tests.helpers.tools.CustomError"
        assert "Traceback" not in json.dumps(raised)
        wrong = await client.put("/tools/add", json={})
        assert wrong.headers["allow"] == "POST, GET, HEAD"
        died = (await client.post("/tools/exit", json={"code": 3})).json()
        assert "exit code 3" in died["detail"]
        assert "about to exit" not in json.dumps(died)  # its stderr stays on the server


async def test_streams_are_events_and_plain_tools_are_if_the_client_asks(pool: snakepit.Pool) -> None:
    wanted = {"accept": "text/event-stream"}
    async with client_of(pool.asgi_app()) as client:
        stream = await client.post("/tools/count", json={"n": 3})
        assert stream.headers["content-type"] == "text/event-stream"
        assert events_of(stream.text) == [("chunk", 0), ("chunk", 1), ("chunk", 2), ("end", {"chunks": 3})]
        plain = await client.post("/tools/add", json={"a": 1}, headers=wanted)
        assert events_of(plain.text) == [("result", 2)]
        late = await client.post("/tools/count_then_fail", json={"n": 2})
        *chunks, (last, problem) = events_of(late.text)
        assert (late.status_code, len(chunks), last, problem["status"]) == (200, 2, "error", 500)
        early = await client.post("/tools/fail", json={"text": "no"}, headers=wanted)
        assert (early.status_code, early.headers["content-type"]) == (500, "application/problem+json")


async def test_calls_whose_time_is_up_are_told_and_counted_as_others_are(pool: snakepit.Pool) -> None:
    for bound, headers in ((0.2, {}), (60, {"request-timeout": "0.2"})):
        async with client_of(pool.asgi_app(max_timeout=bound)) as client:
            plain = await client.post("/tools/sleep", json={"seconds": 60}, headers=headers)
            events = await client.post("/tools/sleep_and_count", json={"seconds": 60}, headers=headers)
        for answer in (plain, events):
            assert (answer.status_code, "and ran for" in answer.json()["detail"]) == (504, True), answer.text
    stats = pool.get_stats()
    assert (stats.timed_out, stats.cancelled) == (4, 0)


async def test_progress_comes_as_events() -> None:
    async with (
        snakepit.open_pool(ProgressTools, workers=1) as pool,
        client_of(pool.asgi_app(), timeout=30) as client,
    ):
        answer = await client.post("/tools/count", json={"n": 9}, headers={"accept": "text/event-stream"})
        *reports, (last, result) = events_of(answer.text)
        assert {name for name, _ in reports} == {"progress"}
        assert reports[-1][1]["done"] == 9
        plain = await client.post("/tools/count", json={"n": 9})
        assert (last, result) == ("result", plain.json())


async def test_a_token_is_asked_for_everywhere_but_for_health(pool: snakepit.Pool) -> None:
    with_token, wrong = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer x"}
    async with client_of(pool.asgi_app(token=TOKEN)) as client:
        await answers(
            client,
            [
                ("GET", "/livez", {}, 200, ""),
                ("GET", "/readyz", {}, 200, ""),
                ("GET", "/tools", {}, 401, "unauthorized"),
                ("GET", "/openapi.json", {"headers": {"authorization": "Basic eDp5"}}, 401, "unauthorized"),
                ("POST", "/tools/add", {"json": {"a": 1}}, 401, "unauthorized"),
                ("POST", "/tools/add", {"json": {"a": 1}, "headers": wrong}, 401, "unauthorized"),
                ("POST", "/tools/add", {"json": {"a": 1}, "headers": with_token}, 200, ""),
            ],
        )
        refused = await client.get("/tools")
        assert refused.headers["www-authenticate"] == 'Bearer realm="snakepit"'
        document = (await client.get("/openapi.json", headers=with_token)).json()
        validate(document)
        assert document["security"] == [{"token": []}]


async def test_foreign_pages_are_kept_out(pool: snakepit.Pool) -> None:
    def of(**headers: str) -> dict[str, Any]:
        return {"json": {"a": 1}, "headers": headers}

    app = pool.asgi_app(allowed_hosts=["localhost"], allowed_origins=["https://mine.example"])
    async with client_of(app) as client:
        await answers(
            client,
            [
                ("POST", "/tools/add", of(host="localhost:8000"), 200, ""),
                ("POST", "/tools/add", of(host="evil.example"), 421, "wrong-host"),
                ("POST", "/tools/add", of(origin="https://evil.example"), 403, "foreign-origin"),
                ("POST", "/tools/add", of(origin="null"), 403, "foreign-origin"),
                ("POST", "/tools/add", of(origin="http://localhost"), 200, ""),
                ("POST", "/tools/add", of(origin="https://mine.example"), 200, ""),
            ],
        )


async def test_the_description_is_valid_and_has_all_tools(pool: snakepit.Pool) -> None:
    async with client_of(pool.asgi_app()) as client:
        listed = (await client.get("/tools")).json()["tools"]
        document = (await client.get("/openapi.json")).json()
        validate(document)
        assert document["openapi"] == "3.1.0"
        assert set(document["paths"]) == {f"/tools/{tool['name']}" for tool in listed}
        add = document["paths"]["/tools/add"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert (add["properties"]["a"], add["required"]) == ({"type": "integer"}, ["a"])
        assert (await client.get("/tools/add")).json() in listed
        head = await client.head("/openapi.json")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 1000


async def test_calls_of_a_session_share_its_state() -> None:
    async with (
        snakepit.open_pool(StateTools, workers=2) as pool,
        client_of(pool.asgi_app()) as client,
        pool.session("a-secret-id") as session,
    ):
        await session.register_variable("x", "integer", 1)
        answer = await client.post("/tools/item", json={"name": "x"}, headers={"session-id": "a-secret-id"})
        assert answer.json() == 1, answer.text


async def test_a_full_queue_and_a_pool_that_closed_are_503() -> None:
    async with snakepit.open_pool(Tools, workers=1, max_queue=0) as pool, client_of(pool.asgi_app()) as client:
        await client.get("/tools")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "sleep_async", {"seconds": 60})
            while not pool.get_stats().running:
                await trio.sleep(0.01)
            full = await client.post("/tools/add", json={"a": 1})
            assert (full.status_code, full.headers["retry-after"]) == (503, "1"), full.text
            nursery.cancel_scope.cancel()
    async with client_of(pool.asgi_app()) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
        assert (await client.post("/tools/add", json={"a": 1})).json()["type"].endswith(":closing")


@pytest.mark.parametrize(
    "options",
    [{"token": "short"}, {"max_timeout": 0}, {"max_priority": 101}, {"allowed_hosts": "localhost"}, {"sessions": 1}],
    ids=str,
)
async def test_wrong_options_are_refused(pool: snakepit.Pool, options: dict[str, Any]) -> None:
    with pytest.raises(snakepit.UsageError, match=next(iter(options))) as raised:
        pool.asgi_app(**options)
    assert "short" not in str(raised.value)
