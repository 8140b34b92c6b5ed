"""Pools whose workers stand beside agents, as on other machines. The agents are processes of this machine."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio import Pool
from snakepit_trio.launchers.agent import Order
from snakepit_trio.launchers.authority import Authority, LinkCertificates
from tests.helpers.remote_launcher import Here, ProcessAgent, Remote

TOOLS: Final = "tests.helpers.remote_tools:RemoteTools"
pytestmark = pytest.mark.processes


@asynccontextmanager
async def open_remote(launcher: Remote, **config: Any) -> AsyncIterator[Pool]:
    """A pool of one worker beside an agent."""
    settings: dict[str, Any] = {"workers": 1, "start_timeout": 60, **config}
    try:
        async with snakepit.open_pool(TOOLS, launcher=launcher, **settings) as pool:
            yield pool
    finally:
        with trio.CancelScope(shield=True):
            await launcher.end_agents()


@pytest.mark.parametrize(
    ("name", "seconds"), [("start_timeout", math.inf), ("ping_interval", math.inf), ("ping_timeout", 1e10)]
)
async def test_times_have_no_upper_bound(name: str, seconds: float) -> None:
    with trio.fail_after(60):
        async with open_remote(Remote(), **{name: seconds}) as pool:
            assert await pool.execute("echo", {"value": 1}) == 1


class ExpiredHost:
    """Issues host's certificates that the worker refuses, as if its clock was far ahead."""

    def issue(self, worker_id: str) -> LinkCertificates:
        authority = Authority()
        good = authority.issue(worker_id)
        host, _ = authority._root.sign("host", None, datetime.now(UTC) - timedelta(minutes=5))
        return attrs.evolve(good, host=host.client(), host_sha256="")


async def test_a_worker_that_refuses_its_host_says_why() -> None:
    with (
        trio.fail_after(60),
        pytest.raises(snakepit.WorkerStartError, match="certificate has expired"),
    ):
        async with open_remote(Remote(issuer=ExpiredHost())):
            pass


@pytest.mark.parametrize("what", ["no TLS", "no name", "refused"])
async def test_an_address_that_cannot_be_reached_is_named(what: str) -> None:
    """The time for the start bounds it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = ("no.such.host.invalid", 9) if what == "no name" else listener.getsockname()

        async def before(agent: ProcessAgent, _order: Order) -> None:
            agent.address = address

        async with trio.open_nursery() as nursery:
            if what == "refused":
                listener.close()
            if what == "no TLS":
                nursery.start_soon(_speak_plainly, listener)
            reached = rf"was not reached within 3 s: {address[0]}:{address[1]}: "
            with trio.fail_after(60), pytest.raises(snakepit.WorkerStartError, match=reached):
                async with open_remote(Remote(before=before), start_timeout=3):
                    pass
            nursery.cancel_scope.cancel()


async def _speak_plainly(listener: socket.socket) -> None:
    listener.setblocking(False)
    server = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    while True:
        async with await server.accept() as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_a_start_that_fails_elsewhere_is_not_put_down_to_a_folder_of_this_machine() -> None:
    launcher = Remote(Here("203.0.113.9"))  # no address of this machine
    with trio.fail_after(60), pytest.raises(snakepit.WorkerStartError, match="could not be started") as raised:
        async with open_remote(launcher, cwd="/only/there", python="/only/there/python"):
            pass
    assert "/only/there" not in str(raised.value)


async def test_a_worker_at_an_address_of_ipv6() -> None:
    with trio.fail_after(60):
        async with open_remote(Remote(Here("::1"))) as pool:
            assert await pool.execute("echo", {"value": 1}) == 1


async def test_workers_that_are_replaced_leave_nothing() -> None:
    """Many lives of workers cost the host no descriptor each."""
    launcher, seen = Remote(), list[int]()
    async with open_remote(launcher, max_restarts=1000) as pool:
        for number in range(12):
            await pool.reload()
            assert await pool.execute("echo", {"value": number}) == number
            launcher.processes.clear()
            launcher.orders.clear()
            assert len(pool.list_workers()) <= 2  # the old one may still be ending
            seen.append(len(os.listdir("/proc/self/fd")))
        # The end of one life may overlap the beginning of the next. Twelve lives lie between the two halves.
        assert min(seen[6:]) <= min(seen[:6]) + 4
