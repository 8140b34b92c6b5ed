"""How two hosts of a store get in each other's way, and take turns."""

from __future__ import annotations

import secrets

import trio

from snakepit_trio.state.backend import Commit, Committed, Known, Sizes, State
from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.shared import SharedStore


async def hosts_take_turns(one: SharedStore, other: SharedStore) -> None:
    """Check that who asks for its turn gets it, uses it up, and does not keep it if it does not come."""
    await one.create_session("s")
    backend = other._backend

    async def is_made(host: SharedStore, *, version: int | None = None, asks: bool = False) -> bool:
        known = (await host._backend.versions(["s"]))["s"]
        known = Known(known.birth, known.version if version is None else version)
        sizes = Sizes(1, 0, 100, 1200)
        host_id = host.hub.epochs.host_id
        commit = Commit(secrets.token_hex(8), "s", known, {}, [], sizes, Quotas(), host_id, asks)
        answer = await host._backend.commit(commit)
        assert isinstance(answer, (Committed, State))
        return isinstance(answer, Committed)

    stale = (await backend.versions(["s"]))["s"].version
    assert await is_made(one)
    assert not await is_made(other, version=stale)
    assert await is_made(one)  # the other one has not asked
    assert not await is_made(other, version=stale, asks=True)
    assert not await is_made(one)
    assert not await is_made(one, version=stale, asks=True)  # it is not its turn
    assert await is_made(other)
    assert await is_made(one)
    assert not await is_made(other, version=stale, asks=True)
    with trio.fail_after(30):
        while not await is_made(one):  # who does not come has had its turn after a while
            await trio.sleep(0.05)
