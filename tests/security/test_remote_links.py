"""A link over TCP: nobody but its host gets anything from a worker, and nobody keeps the host off."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpclib
import grpclib.exceptions
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.tls import Material
from bridge_py.wire.errors import UsageError
from snakepit_trio.launchers.agent import Order
from snakepit_trio.launchers.authority import Authority, LinkCertificates
from tests.helpers import link_attacks as attacks
from tests.helpers.link_attacks import Address, Flood, Kept
from tests.helpers.remote_launcher import ProcessAgent, Remote

TOOLS: Final = "tests.helpers.remote_tools:RemoteTools"
Attack = Callable[[Kept, Address, str], Coroutine[Any, Any, Any]]
#: What a client sees whose certificate is refused: TLS tells it, or its connection ends.
REFUSED: Final = (ssl.SSLError, ConnectionError, grpclib.exceptions.StreamTerminatedError)


def as_client(material: Material) -> Attack:
    async def attack(kept: Kept, address: Address, secret: str) -> Any:
        mine = kept.issued[-1]
        return await attacks.open_link(address, material.client(), mine.worker_name, attacks.hello(secret))

    return attack


def of_host(first: Callable[[str], bytes | None]) -> Attack:
    """By somebody who has the host's very certificate, and not the secret."""

    async def attack(kept: Kept, address: Address, secret: str) -> Any:
        mine = kept.issued[-1]
        return await attacks.open_link(address, mine.host, mine.worker_name, first(secret))

    return attack


async def no_certificate(kept: Kept, address: Address, secret: str) -> Any:
    mine = kept.issued[-1]
    context = attacks.without_certificate(mine.worker.ca)
    return await attacks.open_link(address, context, mine.worker_name, attacks.hello(secret))


async def expired(kept: Kept, address: Address, secret: str) -> Any:
    return await as_client(kept.expired_host())(kept, address, secret)


async def other_authority(kept: Kept, address: Address, secret: str) -> Any:
    theirs = Kept()._root.sign("host", None, datetime.now(UTC) + timedelta(hours=1))[0]
    trusting = Material(kept.issued[-1].worker.ca, theirs.certificate, theirs.key)
    return await as_client(trusting)(kept, address, secret)


async def same_worker(kept: Kept, address: Address, secret: str) -> Any:
    return await as_client(kept.issued[-1].worker)(kept, address, secret)


async def another_worker(kept: Kept, address: Address, secret: str) -> Any:
    other = Authority.issue(kept, "another worker")
    return await as_client(other.worker)(kept, address, secret)


async def another_link(kept: Kept, address: Address, secret: str) -> Any:
    other, mine = Authority.issue(kept, "another worker"), kept.issued[-1]
    return await attacks.open_link(address, other.host, mine.worker_name, attacks.hello(secret))


async def old_tls(kept: Kept, address: Address, secret: str) -> Any:
    context = attacks.without_certificate(kept.issued[-1].worker.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return await attacks.open_link(address, context, kept.issued[-1].worker_name, attacks.hello(secret))


async def plain_http2(_kept: Kept, address: Address, _secret: str) -> Any:
    return await attacks.say_plainly(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))


async def oversized_frames(kept: Kept, address: Address, _secret: str) -> Any:
    mine = kept.issued[-1]
    frames = attacks.frame(4, 0) + attacks.frame(0, 1 << 20, 1)
    await attacks.send_frames(address, mine.host, mine.worker_name, frames)
    return []


STRANGERS: Final[dict[str, tuple[Attack, str]]] = {
    "no certificate": (no_certificate, "TLS with its client failed"),
    "expired": (expired, "certificate has expired"),
    "of another authority": (other_authority, "TLS with its client failed"),
    "the worker's own": (same_worker, "unsuitable certificate purpose|unsupported certificate purpose"),
    "another worker's": (another_worker, "unsuitable certificate purpose|unsupported certificate purpose"),
    "another link's": (another_link, "not the one of our host"),
    "TLS 1.2": (old_tls, "TLS with its client failed"),
    "no TLS": (plain_http2, "TLS with its client failed"),
    "a wrong secret": (of_host(lambda secret: attacks.hello("0" * len(secret))), "the wrong secret"),
    "no secret": (of_host(lambda _secret: attacks.hello("")), "the wrong secret"),
    "no hello": (of_host(lambda _secret: b"\x0a\x02\x08\x07"), "a link is refused"),
    "silence": (of_host(lambda _secret: None), "there is no hello"),
    "too large a batch": (of_host(lambda _secret: attacks.too_large()), "over the limit"),
    "too large a frame": (oversized_frames, ""),
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_a_stranger_gets_nothing_and_the_host_is_served(name: str, caplog: pytest.LogCaptureFixture) -> None:
    attack, said = STRANGERS[name]
    kept, found = Kept(), []

    async def before(agent: ProcessAgent, order: Order) -> None:
        run = partial(attacks.run, partial(attack, kept, agent.address, order.secret))
        found.append(await trio.to_thread.run_sync(run))

    async with snakepit.open_pool(
        TOOLS, workers=1, launcher=Remote(issuer=kept, before=before), start_timeout=60
    ) as pool:
        assert await pool.execute("echo", {"value": 1}) == 1
    (outcome,) = found
    assert not isinstance(outcome, AssertionError | TimeoutError), outcome
    assert isinstance(outcome, (*REFUSED, grpclib.GRPCError)) or not outcome, outcome
    await trio.testing.wait_all_tasks_blocked()
    assert any(part in caplog.text for part in said.split("|")), caplog.text


@pytest.mark.parametrize("how", ["silent", "slow hellos", "hellos"])
async def test_a_flood_keeps_the_host_off_only_for_moments(how: str, caplog: pytest.LogCaptureFixture) -> None:
    first = {"silent": lambda: b"", "slow hellos": attacks.client_hello, "hellos": attacks.client_hello}[how]
    floods: list[Flood] = []
    loop = asyncio.SelectorEventLoop()  # of its own kind: another test may have set a policy
    threads: list[threading.Thread] = []

    async def before(agent: ProcessAgent, _order: Order) -> None:
        flood = Flood(agent.address, first, "127.0.0.2")
        floods.append(flood)
        threads.append(threading.Thread(target=run_until_stopped, args=(loop, flood)))
        threads[0].start()
        while flood.made < 200:
            await trio.sleep(0.02)

    try:
        with trio.fail_after(60):
            async with snakepit.open_pool(TOOLS, workers=1, launcher=Remote(before=before), start_timeout=60) as pool:
                assert await pool.execute("echo", {"value": 1}) == 1
    finally:
        loop.call_soon_threadsafe(loop.stop)
        await trio.to_thread.run_sync(threads[0].join)
    warnings = [record for record in caplog.records if "a connection" in record.getMessage()]
    assert 1 <= len([record for record in warnings if record.levelno >= logging.WARNING]) <= 10


def run_until_stopped(loop: asyncio.AbstractEventLoop, flood: Flood) -> None:
    task = loop.create_task(flood.run())
    loop.run_forever()
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.parametrize("whose", ["another worker's", "another authority's"])
async def test_a_host_tells_an_impostor_nothing(whose: str) -> None:
    kept, heard = Kept(), list[bytes]()
    issuer = kept if whose == "another worker's" else Authority()
    server, serve = attacks.listening(issuer.issue("another worker").worker.server(), heard)
    thread = threading.Thread(target=serve)
    thread.start()

    async def before(agent: ProcessAgent, _order: Order) -> None:
        agent.address = server.getsockname()

    try:
        with pytest.raises(snakepit.WorkerStartError, match="its certificate is not the worker's"):
            async with snakepit.open_pool(TOOLS, workers=1, launcher=Remote(issuer=kept, before=before)):
                pass
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
    assert not any(heard)


async def test_keys_and_secrets_are_nowhere_to_be_read() -> None:
    launcher = Remote(issuer=(kept := Kept()))
    async with snakepit.open_pool(TOOLS, workers=1, launcher=launcher) as pool:
        pid = await pool.execute("pid")
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        key = kept.issued[0].worker.key
        for secret in (launcher.orders[0].secret, key.splitlines()[1]):
            assert secret.encode() not in shown
            assert secret not in repr(launcher.orders[0]) + repr(kept.issued[0]) + repr(kept.issued[0].worker)
        files = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
        assert not any("snakepit-tls" in file or "snakepit-options" in file for file in files)


def test_there_is_no_link_over_tcp_without_tls() -> None:
    from snakepit_trio._connections.grpc_link import TcpAddress

    for context in (None, ssl._create_unverified_context()):
        with pytest.raises(UsageError, match="a link over TCP needs TLS that checks the worker's name"):
            TcpAddress("10.0.0.1", 1, context, "worker", 3.0, 45.0)  # type: ignore[arg-type]  # it is what must be refused


def test_issued_certificates_are_for_their_links_only() -> None:
    authority = Authority()
    one, other = (authority.issue(name) for name in ("one", "other"))
    assert isinstance(one, LinkCertificates)
    assert one.worker_name != other.worker_name
    assert one.host_sha256 != other.host_sha256
    assert one.worker.key != other.worker.key
