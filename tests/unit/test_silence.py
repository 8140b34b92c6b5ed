"""The watch on a link: what has come to this machine counts, whoever reads it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from bridge_py.link import silence
from bridge_py.link.silence import SilenceWatch, has_unread, last_heard, prepare

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
    ):
        yield one, other


async def _sees(connection: socket.socket, seconds: float, wait: float) -> list[str]:
    why: list[str] = []
    watch = SilenceWatch(connection, seconds, why.append)
    await asyncio.sleep(wait)
    watch.close()
    return why


def watched(connection: socket.socket, seconds: float, wait: float) -> list[str]:
    """What a watch says within some time."""
    return asyncio.run(_sees(connection, seconds, wait))


def test_the_kernel_tells_when_data_came(pair: Pair) -> None:
    one, other = pair
    data, anything = last_heard(one)
    assert 0 <= anything <= data < 30
    assert not has_unread(one)
    other.send(b"x")
    assert last_heard(one)[0] < 30
    while not has_unread(one):
        pass


def test_who_acknowledges_is_there(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "last_heard", lambda _: (14.9, 0.9))
    assert watched(pair[0], 1.0, 0.6) == []


def test_silence_is_told_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "last_heard", lambda _: (9.0, 3.2))
    assert watched(pair[0], 0.4, 0.5) == ["nothing has come from the other machine for 3.2 s"]


def test_the_end_of_the_period_is_not_missed_by_a_quarter_of_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host waits for the worker's period, and for a moment. It then says that the worker has ended."""
    delays: list[float] = []

    async def look() -> None:
        watch = SilenceWatch(pair[0], 6.0, lambda _: None)
        timer = watch._timer

        def call_later(delay: float, _look: object) -> asyncio.TimerHandle:
            delays.append(delay)
            return timer

        monkeypatch.setattr(watch._loop, "call_later", call_later)
        monkeypatch.setattr(silence, "last_heard", lambda _: (5.9, 5.9))
        watch._look()
        timer.cancel()

    asyncio.run(look())
    assert delays == [pytest.approx(0.11)]


def test_a_process_that_says_nothing_for_long_is_gone_although_its_machine_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    monkeypatch.setattr(silence, "last_heard", lambda _: (100.0, 0.0))
    (why,) = watched(one, 0.4, 0.5)
    assert why == "the other process has said nothing for 100 s, although its machine answers"
    other.send(b"it has spoken, and nobody has read it")
    while not has_unread(one):
        pass
    assert watched(one, 0.4, 0.5) == []


def test_a_closed_connection_is_not_watched(pair: Pair) -> None:
    one, other = pair
    one.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        last_heard(one)
    watch: list[str] = []

    async def look() -> None:
        made = SilenceWatch(other, 0.1, watch.append)
        other.close()
        await asyncio.sleep(0.1)
        made.close()

    asyncio.run(look())
    assert watch == []


def test_the_kernel_probes(pair: Pair) -> None:
    one, _ = pair
    prepare(one, 6.0)
    tcp = socket.IPPROTO_TCP
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert [one.getsockopt(tcp, option) for option in (socket.TCP_NODELAY, socket.TCP_KEEPIDLE)] == [1, 1]
    assert one.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 9000
