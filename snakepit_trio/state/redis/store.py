"""The store of sessions in a Redis server."""

from __future__ import annotations

import ssl
from functools import partial
from typing import Final

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.validation import check_seconds, check_whole, is_utf8, refuse
from snakepit_trio.state.quotas import Quotas, quotas_of
from snakepit_trio.state.shared import SharedStore

from .address import read_address
from .backend import RedisBackend

_BRACES: Final = frozenset("{}")
_BESIDE: Final = 16 << 20  # bytes of an answer that are no contents of a session


class RedisStore(SharedStore):
    """Sessions in a Redis server, or Valkey, which several hosts may share. Use it as a block.

        async with RedisStore("redis://sessions.example:6379") as store, open_pool(Tools, store=store) as pool:
            ...

    `urls` say where the server is: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://...` for TLS, or
    `unix://[USER:PASSWORD@]/PATH[?db=DB]`. If you give several, they are a primary and its replicas: the store uses the
    one that says that it is the primary, and looks for it again when that one is lost. `username` and `password` are
    for the URLs that have none. `ssl_context` is for `rediss://`; without it, the server's certificate must fit its
    name and a CA that this machine trusts. Passwords are in no log and no repr.

    All keys begin with `{prefix}:`. Stores with another prefix, or another database, see nothing of each other.

    `timeout`, in seconds, bounds each question to the server, with all reconnects. Then the method raises
    `StoreUnavailable`. An update that was sent is sent again on the next connection; the server knows it by its id, and
    makes it once. If its outcome cannot be found out in time, the message says so.

    A change is acknowledged when the server has it, and `replicas` of its replicas have it too. With 0, a failover may
    lose the last acknowledged changes. With fewer replicas than asked for, changes raise `StoreUnavailable`.

    Time is the server's. Each read or change of a session is one round trip. `quotas` hold for what this host adds:
    give all hosts the same ones. `cache_sessions` and `cache_bytes` bound the copies that this host keeps of sessions
    that nobody watches here. Every `recheck` seconds, the versions of all watched sessions are compared, in case that
    a notice was lost. What an update function must bear is said at `SharedStore.update_session`.

    Raises `UsageError` for arguments that make no sense, and if the extra `redis` is missing. Entering the block raises
    `StoreUnavailable` if no server answers in time. Leaving it closes the connection; the sessions stay.
    """

    def __init__(
        self,
        *urls: str,
        prefix: str = "snakepit",
        username: str | None = None,
        password: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        quotas: Quotas | None = None,
        timeout: float = 5.0,
        replicas: int = 0,
        cache_sessions: int = 1000,
        cache_bytes: int = 64 << 20,
        recheck: float = 30.0,
    ) -> None:
        if not urls:
            raise UsageError("RedisStore needs the address of a server: give RedisStore('redis://HOST:PORT')")
        if not is_utf8(prefix) or not prefix or _BRACES & set(prefix):
            raise refuse("prefix", prefix, "give text without braces")
        check_seconds("timeout", timeout)
        check_whole("replicas", replicas, 0)
        quotas = quotas_of(quotas)
        most = None if quotas.bytes is None else 2 * quotas.bytes + _BESIDE
        read = partial(read_address, username=username, password=password, tls=ssl_context, most_bytes=most)
        super().__init__(
            RedisBackend([read(url) for url in urls], prefix, timeout, replicas),
            name="RedisStore(...)",
            quotas=quotas,
            cache_sessions=cache_sessions,
            cache_bytes=cache_bytes,
            recheck=recheck,
        )

    def __repr__(self) -> str:
        return f"<RedisStore: {self._backend!r}>"
