"""Two host processes share sessions in one file. A ring says who has which; one host is killed, the other goes on.

Each host process has a trio loop, a pool and a store object of its own. When a host is gone, the ring without it says
who goes on, and no other session moves.

It prints:

    each host has sessions: True
    who serves now: {'host-b'}
    what all have: {"['tea', 'cake']"}
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from snakepit_trio.state.sqlite import SqliteStore

HOSTS = ("host-a", "host-b")
CUSTOMERS = [f"customer-{number}" for number in range(20)]


class Baskets(BaseAdapter):
    """What runs in the workers of both hosts."""

    @tool
    def add(self, context: SessionContext, item: str) -> list[str]:
        """Put something into the basket of the session."""
        items = [*context["items"], item] if "items" in context else [item]
        context["items"] = items
        return items


async def serve(name: str, path: str) -> None:
    """A host process: it answers requests, one JSON object a line. In your application this may be HTTP."""
    async with SqliteStore(path) as store, snakepit.open_pool(Baskets, workers=1, name=name, store=store) as pool:
        requests = trio.lowlevel.FdStream(sys.stdin.fileno())
        rest = b""
        async for data in requests:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                async with pool.session(request["session"], ttl=3600) as session:
                    items = await session.execute("add", {"item": request["item"]})
                print(json.dumps({"host": name, "items": items}), flush=True)


class Host:
    """A host process, as the front of the application sees it."""

    def __init__(self, name: str, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, name, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def add(self, session: str, item: str) -> dict[str, object]:
        """Have the host run a call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"session": session, "item": item}), file=self._process.stdin, flush=True)
        answer: dict[str, object] = json.loads(self._process.stdout.readline())
        return answer

    def kill(self) -> None:
        """End it as a crash would. Its guardian ends its workers."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it in order, if it lives."""
        self._process.communicate()


def shop(path: str) -> None:
    """The front: it knows the hosts and the ring, and no session."""
    with ExitStack() as stack:
        hosts = {name: Host(name, path) for name in HOSTS}
        for host in hosts.values():
            stack.callback(host.close)
        ring = snakepit.HashRing(HOSTS)
        served = [hosts[ring.of(customer)].add(customer, "tea")["host"] for customer in CUSTOMERS]
        print("each host has sessions:", set(served) == set(HOSTS))

        hosts["host-a"].kill()
        ring = snakepit.HashRing([name for name in HOSTS if name != "host-a"])
        answers = [hosts[ring.of(customer)].add(customer, "cake") for customer in CUSTOMERS]
        print("who serves now:", {answer["host"] for answer in answers})
        print("what all have:", {str(answer["items"]) for answer in answers})


def main() -> None:
    """Be a host if the arguments name one, else the front."""
    if len(sys.argv) > 1:
        _, name, path = sys.argv
        trio.run(serve, name, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        shop(str(Path(folder) / "sessions.db"))


if __name__ == "__main__":
    main()
