"""The dashboard in a real browser: it loads, updates under load, shows deaths, and cancels calls by keyboard."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.browser import Browser, browsing
from tests.helpers.chromium import why_no_browser
from tests.helpers.tools import Tools

pytestmark = pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser()))

LIVE = "document.getElementById('connection').textContent === 'live'"


def text(id: str) -> str:
    """JavaScript for the text of an element."""
    return f"document.getElementById({id!r}).textContent"


def cells(table: str, column: int) -> str:
    """JavaScript for the texts of a column of a table."""
    rows = f"document.getElementById('{table}-table').tBodies[0].rows"
    return f"[...{rows}].map((row) => row.cells[{column}]?.textContent)"


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(120):
        async with snakepit.open_pool(Tools, workers=2, name="shop") as opened:
            yield opened  # noqa: ASYNC119


async def test_it_loads_and_follows_the_load(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, browsing() as browser, trio.open_nursery() as nursery:

        async def load() -> None:
            while True:
                await pool.execute("sleep_async", {"seconds": 0.02}, session="alice")

        for _ in range(4):
            nursery.start_soon(load)
        await browser.goto(url)
        await browser.until(LIVE)
        assert await browser.value("location.href") == url.partition("#")[0]  # the token is not in sight
        assert await browser.value(text("name")) == "shop"
        assert await browser.value("document.title") == "shop - snakepit"
        before = int((await browser.value(text("tile-calls"))).replace(",", ""))
        await browser.until(f"Number({text('tile-calls')}.replaceAll(',', '')) > {before + 5}")
        await browser.until(f"{cells('workers', 0)}.join() === 'shop-1,shop-2'")
        await browser.until(f"{cells('calls', 1)}.includes('sleep_async')")
        await browser.until(f"{cells('sessions', 0)}.includes('alice')")
        await browser.until(f"{text('sessions-count')} === '1'")
        await browser.until("document.querySelector('.chart .curve.k1[d^=M]')")
        await browser.until("document.querySelectorAll('.chart svg[aria-label*=now]').length === 4")
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await browser.complaints() == []


async def test_a_reload_needs_no_token_and_finds_the_history(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, browsing() as browser:
        await browser.goto(url)
        await browser.until(LIVE)
        await trio.sleep(2.1)  # two more samples
        await browser.goto(url.partition("#")[0])
        await browser.until(LIVE)
        drawn = "document.querySelector('.chart .curve.k1').getAttribute('d').split('L').length"
        assert await browser.until(f"{drawn} >= 3 && {drawn}") >= 3


async def test_a_killed_worker_is_seen_to_crash_and_to_come_back(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, browsing() as browser:
        await browser.goto(url)
        await browser.until(LIVE)
        first, _ = pool.list_workers()
        assert first.pid is not None
        await browser.until(f"{cells('workers', 2)}.includes('{first.pid}')")
        os.kill(first.pid, 9)
        await browser.until(f"{cells('events', 2)}.includes('crashed')")
        assert any("SIGKILL" in cause for cause in await browser.value(cells("events", 3)))
        await browser.until(f"{cells('events', 2)}[0] === 'is ready'")
        await browser.until(f"!{cells('workers', 2)}.includes('{first.pid}')")
        await browser.until(f"{cells('workers', 1)}.join() === 'ready,ready'")
        assert await browser.value(cells("workers", 5)) == ["1", "0"]
        await browser.until(f"{cells('log', 3)}.some((line) => line.includes('it is replaced'))")


async def focused(browser: Browser) -> Any:
    """The label, or the id, of what has the focus."""
    return await browser.value("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")


async def test_a_call_is_cancelled_by_keyboard_and_the_focus_stays_near(pool: snakepit.Pool) -> None:
    errors: list[BaseException] = []

    async def call() -> None:
        try:
            await pool.execute("sleep", {"seconds": 600}, timeout=None)
        except snakepit.CallCancelled as error:
            errors.append(error)

    async with pool.serve_dashboard() as url, browsing() as browser, trio.open_nursery() as nursery:
        nursery.start_soon(call)
        nursery.start_soon(call)
        await browser.goto(url)
        await browser.until(f"{cells('calls', 2)}.join() === 'running,running'")
        await browser.press("Tab")
        assert await browser.value("document.activeElement.className") == "skip"
        await browser.press("Enter", "Tab", "Tab")  # over the table, which scrolls
        first, second = sorted(each.id for each in pool.list_calls())
        assert await focused(browser) == f"Cancel call {first}, sleep"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await browser.value(outline) == "solid"
        await browser.press("Enter")
        await browser.until(f"{cells('calls', 0)}.join() === '{second}'")
        assert await browser.value(text("announce")) == f"Call {first} of sleep is being stopped"
        assert await focused(browser) == f"Cancel call {second}, sleep"
        await browser.press("Space")
        await browser.until(f"{cells('calls', 0)}.join() === 'No call is under way.'")
        assert await browser.value("document.activeElement.className") == "scroll"
    assert [str(error) for error in errors] == ["'sleep' was cancelled through the pool: on the dashboard"] * 2


async def test_updates_pause_and_go_on(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, browsing() as browser:
        await browser.goto(url)
        await browser.until(LIVE)
        await browser.value("document.getElementById('pause').focus()")
        await browser.press("Enter")
        assert await browser.value("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
        before = await browser.value(text("about"))
        await trio.sleep(1.2)
        assert await browser.value(text("about")) == before
        await browser.press("Enter")
        assert await browser.until(f"{text('about')} !== {before!r}")


async def test_without_the_token_it_asks_for_it(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, browsing() as browser:
        page, _, token = url.partition("#token=")
        await browser.goto(f"{page}#token=not-the-token-of-this-pool")
        await browser.until("!document.getElementById('ask').hidden")
        assert "not the token" in await browser.value(text("ask-why"))
        assert await focused(browser) == "token"
        assert await browser.value("document.getElementById('board').hidden")
        await browser.ask("type", token)
        await browser.press("Enter")
        await browser.until(LIVE)


async def test_it_says_when_the_pool_has_closed() -> None:
    with trio.fail_after(120):
        async with browsing() as browser:
            async with snakepit.open_pool(Tools, workers=1) as pool, pool.serve_dashboard() as url:
                await browser.goto(url)
                await browser.until(LIVE)
            await browser.until(f"{text('connection')} === 'the pool has closed'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_narrow_window_scrolls_tables_and_not_the_page(pool: snakepit.Pool, scheme: str) -> None:
    async with (
        pool.serve_dashboard() as url,
        browsing(width=360, height=640, scheme=scheme) as browser,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.execute, "sleep", {"seconds": 600})
        await browser.goto(url)
        await browser.until(f"{cells('calls', 2)}.join() === 'running'")
        assert await browser.value("document.documentElement.scrollWidth") == 360
        box = "document.querySelector('#calls-table button').getBoundingClientRect()"
        assert 0 < await browser.value(f"{box}.left") < await browser.value(f"{box}.right") <= 360  # it is in sight
        back = await browser.value("getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in back.removeprefix("rgb(").removesuffix(")").split(", ")) > 3 * 128
        assert light is (scheme == "light")
        nursery.cancel_scope.cancel()


#: What an image has: its size, the mean of its light from 0 to 255, and how many colours.
MEASURED = """(async () => {
    const image = new Image();
    image.src = "data:image/png;base64,%s";
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, image.width, image.height).data;
    const colours = new Set();
    let light = 0;
    for (let at = 0; at < data.length; at += 4) {
        light += (data[at] + data[at + 1] + data[at + 2]) / 3;
        colours.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
    }
    return [image.width, image.height, light * 4 / data.length, colours.size];
})()"""


async def measured(browser: Browser, picture: Path) -> list[float]:
    """What a screenshot has. The browser itself reads it, on a blank page."""
    await browser.goto("about:blank")
    return list(await browser.value(MEASURED % base64.b64encode(picture.read_bytes()).decode()))


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_screenshots_show_the_page_in_its_colours(
    pool: snakepit.Pool, tmp_path: Path, scheme: str, width: int
) -> None:
    idle, busy = tmp_path / "idle.png", tmp_path / "busy.png"
    async with (
        pool.serve_dashboard() as url,
        browsing(width=width, scheme=scheme) as browser,
        trio.open_nursery() as nursery,
    ):
        await browser.goto(url)
        await browser.until(f"{cells('workers', 1)}.join() === 'ready,ready'")
        await browser.ask("screenshot", str(idle))
        nursery.start_soon(pool.execute, "sleep", {"seconds": 600})
        await browser.until(f"{cells('calls', 2)}.join() === 'running'")
        await browser.ask("screenshot", str(busy))
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            seen = [await measured(browser, picture) for picture in (idle, busy)]
    for picture_width, height, light, colours in seen:
        assert picture_width == width
        assert height > 640  # the whole page
        assert light > 200 if scheme == "light" else light < 60
        assert colours > 50  # letters have soft edges
    assert idle.read_bytes() != busy.read_bytes()
