"""A page in a real Chromium, without a window. `python -m tests.helpers.browser` drives it in a process of its own.

Playwright brings an event loop and threads of its own, which have no place in the process that runs the tests. Each
line of stdin is a command, and each line of stdout its answer, both as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tests.helpers.chromium import find

ROOT: Final = Path(__file__).parents[2]
_WAIT: Final = 30_000  # milliseconds


class Browser:
    """The page, as a test sees it."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._received = b""

    async def ask(self, command: str, *args: Any) -> Any:
        """Do something in the page, and return what comes of it. Raises `AssertionError`, also after 30 s."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps([command, *args]).encode() + b"\n")
        answer = json.loads(await self._line())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            part = await self._process.stdout.receive_some()
            assert part, "the browser has gone"
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line

    async def goto(self, url: str) -> None:
        """Open an address."""
        await self.ask("goto", url)

    async def until(self, expression: str) -> Any:
        """Wait until an expression of JavaScript is true, and return its value."""
        return await self.ask("until", expression)

    async def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return await self.ask("value", expression)

    async def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        await self.ask("press", *keys)

    async def complaints(self) -> list[str]:
        """What the page has complained about so far: errors, warnings, refusals of its policy."""
        return list(await self.ask("complaints"))


@asynccontextmanager
async def browsing(*, width: int = 1280, height: int = 900, scheme: str = "light") -> AsyncIterator[Browser]:
    """Open a page for the time of the block. Its browser has ended then."""
    options = json.dumps({"width": width, "height": height, "scheme": scheme})
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            [sys.executable, "-m", "tests.helpers.browser", options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
        )
        process: trio.Process = await nursery.start(start)
        try:
            yield Browser(process)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            with trio.CancelScope(shield=True), trio.move_on_after(30):
                await process.stdin.aclose()
                async with process.stdout:
                    while await process.stdout.receive_some():
                        pass
                await process.wait()
            nursery.cancel_scope.cancel()


# The process.


def main() -> None:
    """Drive a page until stdin ends."""
    from playwright.sync_api import sync_playwright

    options = json.loads(sys.argv[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])  # root needs that
        context = browser.new_context(
            color_scheme=options["scheme"], viewport={"width": options["width"], "height": options["height"]}
        )
        context.set_default_timeout(_WAIT)
        page = context.new_page()
        complaints: list[str] = []

        def note(message: Any) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for line in sys.stdin:
            command, *args = json.loads(line)
            try:
                answer = {"value": complaints if command == "complaints" else _do(page, command, args)}
            except Exception as error:
                answer = {"error": f"{command} {args}: {error}"}
            print(json.dumps(answer), flush=True)
        browser.close()


def _do(page: Any, command: str, args: list[Any]) -> Any:
    match command:
        case "goto":
            page.goto(*args)
        case "until":
            return _until(page, *args)
        case "value":
            return page.evaluate(*args)
        case "press":
            for key in args:
                page.keyboard.press(key)
        case "type":
            page.keyboard.type(*args)
        case "screenshot":
            page.screenshot(path=args[0], full_page=True)
        case _:
            raise ValueError(command)
    return None


def _until(page: Any, expression: str) -> Any:
    # Not playwright's own waiting: it uses eval, which the policy of the page forbids.
    deadline = time.monotonic() + _WAIT / 1000
    while not (value := page.evaluate(expression)):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come true")
        page.wait_for_timeout(20)
    return value


if __name__ == "__main__":
    main()
