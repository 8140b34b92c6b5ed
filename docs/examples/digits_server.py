"""A server that recognizes handwritten digits: in batches, with progress, a warm spare, and a reload under load.

Fifty clients use it over HTTP at the same time. A third of them leave in the middle of a long call, one worker is
killed, and all are reloaded. Needs `pip install 'snakepit-trio[ml,serve]'`; no model and no data is downloaded.

It prints:

    660 answers, 90% of them right
    left in the middle: 17; calls that still run: 0
    workers that were killed: 1; replaced by the reload: ...
    p50 ... ms, p99 ... ms
"""

from __future__ import annotations

import json
import os
import signal
import statistics
from functools import partial
from typing import Any

import hypercorn.trio
import numpy as np
import trio
from hypercorn.config import Config
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool

CLIENTS = 50
IMAGES = 20  # that a client sends, one after the other
SEEN = 1500  # images that the model learns from; the rest is for the clients


class Digits(BaseAdapter):
    """One model for each worker."""

    def setup(self) -> None:
        """Learn. A spare has done this before it is needed."""
        self._images, self._truth = load_digits(return_X_y=True)
        forest = RandomForestClassifier(n_estimators=50, random_state=0)
        self._model = forest.fit(self._images[:SEEN], self._truth[:SEEN])

    @tool(batch=32, wait=0.005, idempotent=True)
    def classify(self, image: list[list[float]]) -> list[int]:
        """Tell which digit an image shows: 64 numbers from 0 to 16."""
        return self._model.predict(np.asarray(image)).tolist()

    @tool
    def evaluate(self, context: SessionContext, rounds: int = 10_000) -> float:
        """Measure the accuracy again and again, which takes minutes."""
        for done in range(rounds):
            accuracy = self._model.score(self._images[SEEN:], self._truth[SEEN:])
            context.progress(done + 1, rounds, f"{accuracy:.2f}")
        return accuracy


async def request(stream: trio.SocketStream, name: str, arguments: dict[str, Any], accept: str) -> None:
    """Send a request by hand, as a client in any language might."""
    body = json.dumps(arguments).encode()
    lines = [f"POST /tools/{name} HTTP/1.1", "Host: localhost", f"Accept: {accept}", f"Content-Length: {len(body)}"]
    await stream.send_all("\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body)


async def classify(port: int, images: list[list[float]], answers: list[int], times: list[float]) -> None:
    """Ask for one digit after another on one connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for image in images:
            began = trio.current_time()
            await request(stream, "classify", {"image": image}, "application/json")
            answer = await stream.receive_some()
            while not answer.partition(b"\r\n\r\n")[2]:
                answer += await stream.receive_some()
            times.append(trio.current_time() - began)
            answers.append(int(answer.partition(b"\r\n\r\n")[2]))


async def leave(port: int) -> None:
    """Start what takes minutes, hear of its progress, and close the connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await request(stream, "evaluate", {}, "text/event-stream")
        async for part in stream:
            if b"event: progress" in part:
                break


async def disturb(pool: snakepit.Pool) -> None:
    """Kill a worker, and then replace all by fresh ones, under load."""
    os.kill(pool.list_workers()[0].pid or 0, signal.SIGKILL)
    await pool.reload()


async def main() -> None:
    """Serve, and be fifty clients."""
    config = Config()
    config.bind, config.loglevel = ["127.0.0.1:0"], "WARNING"
    images, truth = load_digits(return_X_y=True)
    answers: dict[int, list[int]] = {}
    times: list[float] = []
    # A call of an idempotent tool, here `classify`, runs again if its worker dies.
    async with snakepit.open_pool(Digits, workers=2, spares=1) as pool, trio.open_nursery() as server:
        (url,) = await server.start(partial(hypercorn.trio.serve, pool.asgi_app(), config, mode="asgi"))
        port = int(url.rpartition(":")[2])
        async with trio.open_nursery() as clients:
            clients.start_soon(disturb, pool)
            for number in range(CLIENTS):
                if number % 3:
                    first = SEEN + 5 * number
                    answers[first] = []
                    clients.start_soon(classify, port, images[first : first + IMAGES].tolist(), answers[first], times)
                else:
                    clients.start_soon(leave, port)
        with trio.fail_after(5):  # a client that has gone is noticed at once, and its tool is stopped within a second
            while pool.get_stats().running:  # noqa: ASYNC110 - nothing tells of that
                await trio.sleep(0.01)
        stats = pool.get_stats()
        server.cancel_scope.cancel()
    right = sum(int(truth[first + at] == digit) for first, found in answers.items() for at, digit in enumerate(found))
    print(f"{len(times)} answers, {right / len(times):.0%} of them right")
    print(f"left in the middle: {CLIENTS - len(answers)}; calls that still run: {stats.running + stats.queued}")
    print(f"workers that were killed: {stats.restarts}; replaced by the reload: {stats.recycled}")
    print(f"p50 {statistics.median(times) * 1000:.0f} ms, p99 {np.percentile(times, 99) * 1000:.0f} ms")


if __name__ == "__main__":
    trio.run(main)
