"""Who may look at a dashboard, and who may not: other sites in the user's browser, and those without the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.browser import browsing
from tests.helpers.chromium import why_no_browser
from tests.helpers.http_server import hypercorn_for
from tests.helpers.tools import Tools

FILES = ["", "style.css", "page.js", "charts.js", "icon.svg"]
needs_browser = pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser()))


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(120):
        async with snakepit.open_pool(Tools, workers=1, name="shop") as opened:
            yield opened  # noqa: ASYNC119


@pytest.fixture
async def dashboard(pool: snakepit.Pool) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client, without the token, and the token."""
    async with pool.serve_dashboard() as url:
        base, _, token = url.partition("#token=")
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            yield client, token  # noqa: ASYNC119


Dashboard = tuple[httpx.AsyncClient, str]


async def test_without_the_token_nothing_is_told_and_nothing_is_cancelled(
    pool: snakepit.Pool, dashboard: Dashboard
) -> None:
    client, token = dashboard
    wrong = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Basic {token}"},
        {"Cookie": f"token={token}"},
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "sleep", {"seconds": 600})
        while not (calls := pool.list_calls()):
            await trio.sleep(0.01)
        for headers in wrong:
            assert (await client.get("events", headers=headers)).status_code == 401
            assert (await client.get(f"events?token={token}", headers=headers)).status_code == 401
            cancel = f"calls/{calls[0].id}/cancel"
            assert (await client.post(cancel, headers=headers, json={})).status_code == 401
        assert [each.state for each in pool.list_calls()] == ["running"]
        nursery.cancel_scope.cancel()


async def test_what_is_served_without_the_token_has_nothing_of_the_pool(dashboard: Dashboard) -> None:
    client, token = dashboard
    for name in FILES:
        answer = await client.get(name)
        assert answer.status_code == 200
        assert "shop" not in answer.text
        assert token not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


@pytest.mark.parametrize("name", [*FILES, "events", "calls/1/cancel"])
async def test_a_name_that_was_made_to_lead_here_is_refused(dashboard: Dashboard, name: str) -> None:
    client, token = dashboard
    headers = {"Authorization": f"Bearer {token}", "Host": "evil.example:80"}
    answer = await client.request("POST" if "cancel" in name else "GET", name, headers=headers)
    assert answer.status_code == 421


async def test_a_page_of_another_site_is_refused_even_with_the_token(dashboard: Dashboard) -> None:
    client, token = dashboard
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        headers = {"Authorization": f"Bearer {token}", "Origin": origin}
        assert (await client.get("events", headers=headers)).status_code == 403
        assert (await client.post("calls/1/cancel", headers=headers, json={})).status_code == 403
        assert (await client.options("calls/1/cancel", headers=headers)).status_code == 403


async def test_a_form_cannot_cancel(dashboard: Dashboard) -> None:
    client, token = dashboard
    headers = {"Authorization": f"Bearer {token}"}
    assert (await client.post("calls/1/cancel", headers=headers, data={"a": "b"})).status_code == 415
    large = await client.post("calls/1/cancel", headers=headers, json={"a": "x" * 2000})
    assert large.status_code == 413


@needs_browser
async def test_another_site_in_the_same_browser_reads_and_frames_nothing(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "sleep", {"seconds": 600})
        while not (calls := pool.list_calls()):
            await trio.sleep(0.01)
        base, _, token = url.partition("#token=")

        async def evil(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                raise NotImplementedError
            headers = [(b"content-type", b"text/html")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            body = f"<iframe id=frame src='{base}'></iframe>"
            await send({"type": "http.response.body", "body": body.encode()})

        async with hypercorn_for(evil) as port, browsing() as browser:
            assert urlsplit(base).port != port
            await browser.goto(f"http://localhost:{port}/")
            attempt = "fetch({!r}, {}).then(() => 'reached', () => 'refused')"
            with_token = f"{{headers: {{Authorization: 'Bearer {token}'}}}}"
            assert await browser.value(attempt.format(f"{base}events", with_token)) == "refused"
            assert await browser.value(attempt.format(f"{base}page.js", "{}")) == "refused"
            blind = "{method: 'POST', mode: 'no-cors', body: '{}'}"
            await browser.value(attempt.format(f"{base}calls/{calls[0].id}/cancel", blind))
            assert [each.state for each in pool.list_calls()] == ["running"]
            framed = "document.getElementById('frame').contentDocument"
            assert await browser.value(framed) is None  # the browser shows its own page of refusal there
        nursery.cancel_scope.cancel()


@needs_browser
async def test_what_workers_log_and_callers_name_never_becomes_markup(pool: snakepit.Pool) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e"
    async with pool.serve_dashboard() as url, browsing() as browser, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.execute("sleep", {"seconds": 600}, session=evil))
        pool.events.emit("worker.crashed", {"worker": evil, "pid": 1, "problem": evil})
        await browser.goto(url)
        rows = "document.getElementById('calls-table').tBodies[0].rows"
        await browser.until(f"{rows}[0]?.cells[7]?.textContent.startsWith('<img')")
        assert await browser.value("document.querySelectorAll('img, td script').length") == 0
        assert await browser.value("document.title") == "shop - snakepit"
        assert await browser.complaints() == []
        nursery.cancel_scope.cancel()
