"""Tools over HTTP: an app under hypercorn, on trio, and clients of it. Needs `pip install 'snakepit-trio[serve]'`.

It prints:

    0.25
    500 The tool raised an exception: ZeroDivisionError: float division by zero
    422 The arguments do not fit the tool: divide: the argument 'b' does not fit: expected number, got 'two'
    404 There is no such tool: no tool 'divde'; did you mean 'divide'?
    event: chunk
    id: 1
    data: "o"

    event: chunk
    id: 2
    data: "k"

    event: end
    id: 3
    data: {"chunks":2}
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool


class Tools(BaseAdapter):
    """What is served."""

    @tool
    def divide(self, a: float, b: float) -> float:
        """Divide two numbers."""
        return a / b

    @tool
    def letters(self, text: str) -> Iterator[str]:
        """The letters of a text, one by one."""
        yield from text


def post(url: str, arguments: dict[str, Any], **headers: str) -> str:
    """Make a request; returns the answer, or the problem."""
    body, sent = json.dumps(arguments).encode(), {"Content-Type": "application/json", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, sent)) as answer:  # noqa: S310 - our own server
            return answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            told = json.load(problem)
            return f"{told['status']} {told['title']}: {told['detail']}"


async def main() -> None:
    """Serve, and make some calls."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "WARNING"
    async with snakepit.open_pool(Tools, workers=2) as pool, trio.open_nursery() as nursery:
        app = pool.asgi_app()
        (url,) = await nursery.start(partial(hypercorn.trio.serve, app, config, mode="asgi"))
        for tool_name, arguments in [
            ("divide", {"a": 1, "b": 4}),
            ("divide", {"a": 1, "b": 0}),
            ("divide", {"a": 1, "b": "two"}),
            ("divde", {}),
            ("letters", {"text": "ok"}),
        ]:
            print(await trio.to_thread.run_sync(post, f"{url}/tools/{tool_name}", arguments))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
