"""The store in a real Redis server: several hosts, what the server refuses, connections that break, what is hidden."""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.state.redis import RedisStore, backend
from tests.helpers.certificates import Authority
from tests.helpers.redis_server import RedisServer, redis_server
from tests.helpers.redis_stores import redis_store
from tests.helpers.store_turns import hosts_take_turns

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("redis")]

TOOLS = "tests.helpers.state_tools:StateTools"


async def count(store: RedisStore, session_id: str = "s", by: int = 1) -> int:
    def change(session: snakepit.Session) -> int:
        value: int = session.update("n", session.get("n").value + by).value
        return value

    return await store.update_session(session_id, change)


async def with_counter(store: RedisStore, session_id: str = "s") -> None:
    await store.create_session(session_id)
    await store.of(session_id).register_variable("n", "integer", 0)


# Several hosts.


async def test_a_session_goes_on_at_another_host(redis: RedisServer) -> None:
    async with RedisStore(redis.url, prefix="hosts") as one, RedisStore(redis.url, prefix="hosts") as other:
        async with snakepit.open_pool(TOOLS, workers=1, store=one) as pool, pool.session("s") as session:
            await session.execute("put_item", {"name": "x", "value": [1, {"a": 2}]})
        async with snakepit.open_pool(TOOLS, workers=1, store=other) as pool, pool.session("s") as session:
            assert await session.execute("item", {"name": "x"}) == [1, {"a": 2}]
            await session.execute("put_item", {"name": "x", "value": [3]})
        assert await one.of("s").get_variable_value("x") == [3]


async def test_many_tasks_of_two_hosts_lose_no_update(redis: RedisServer) -> None:
    async with RedisStore(redis.url, prefix="tasks") as one, RedisStore(redis.url, prefix="tasks") as other:
        await with_counter(one)
        async with trio.open_nursery() as nursery:
            for store in (one, other) * 20:
                nursery.start_soon(count, store)
        assert await other.of("s").get_variable_value("n") == 40
        assert len(await one.of("s").history("n")) == 41


async def test_a_host_that_asks_gets_its_turn(redis: RedisServer) -> None:
    async with RedisStore(redis.url, prefix="turns") as one, RedisStore(redis.url, prefix="turns") as other:
        await hosts_take_turns(one, other)


async def test_prefixes_and_databases_see_nothing_of_each_other(redis: RedisServer) -> None:
    urls = {"a": redis.url, "b": redis.url, "a ": f"{redis.url}?db=1"}
    for prefix, url in urls.items():
        async with RedisStore(url, prefix=prefix.strip()) as store:
            assert await store.list_sessions() == []
            await store.create_session("s")
            await store.store_global_program("p", prefix)
            assert (await store.get_stats()).sessions == 1
    for prefix, url in urls.items():
        async with RedisStore(url, prefix=prefix.strip()) as store:
            assert await store.list_sessions() == ["s"]
            assert await store.get_global_program("p") == prefix


async def test_many_sessions_are_listed_and_expire_piece_by_piece(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_LISTED_AT_A_TIME", 10)
    async with RedisStore(redis.url, prefix="pieces") as store:
        expected = [await store.create_session(ttl=None) for _ in range(20)]
        assert await store.list_sessions() == expected
        expected.append(await store.create_session("last", ttl=None))
        assert await store.list_sessions() == expected
        async with trio.open_nursery() as nursery:
            for number in range(450):
                nursery.start_soon(partial(store.create_session, f"e{number}", ttl=0.2))
        await trio.sleep(0.3)
        assert len(await store._backend.expire()) == 200
        assert await store.cleanup_expired_sessions() == 250
        assert await store.list_sessions() == expected


async def test_an_expiry_is_counted_once_and_leaves_nothing(redis: RedisServer) -> None:
    async with RedisStore(redis.url, prefix="ends") as one, RedisStore(redis.url, prefix="ends") as other:
        await one.create_session("s", ttl=0.2)
        async with one.of("s").watch() as updates, trio.open_nursery() as nursery:
            nursery.start_soon(other.run_reaper, 0.01)
            with trio.fail_after(10):
                async for _ in updates:  # it ends with the session
                    raise AssertionError("nothing has changed")
            nursery.cancel_scope.cancel()
        removed = await one.cleanup_expired_sessions()
        stats = await other.get_stats()
        assert (removed, stats.expired, stats.sessions, stats.bytes) == (0, 1, 0, 0)
        keys = set(redis.ask("KEYS", "{ends}:*").split())
        assert keys == {"{ends}:counts"}


# What the server refuses.


@contextmanager
def refusing(text: str) -> Iterator[None]:
    with pytest.raises(snakepit.StoreUnavailable, match=text):
        yield


async def test_a_full_memory_is_told_of_and_sessions_can_be_read_and_deleted() -> None:
    with redis_server() as server:
        async with RedisStore(server.url) as store:
            await with_counter(store)
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with refusing("its memory is full"):
                await count(store)
            with refusing("its memory is full"):
                await store.create_session("t")
            assert await store.of("s").get_variable_value("n") == 0
            server.ask("CONFIG", "SET", "maxmemory", "0")
            assert await count(store) == 1
            for session_id in ("b", "c", "d"):
                await store.create_session(session_id, ttl=0.01)
            server.ask("CONFIG", "SET", "maxmemory", "1")
            await trio.sleep(0.05)
            with pytest.raises(snakepit.SessionNotFound):
                await store.get_session("b")
            assert await store.cleanup_expired_sessions() == 2
            assert await store.list_sessions() == ["s"]
            assert await store.delete_session("s")
            assert not await store.delete_session("s")
            assert (await store.get_stats()).bytes == 0


async def test_who_may_not_come_in_is_told_so_and_no_text_has_the_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with redis_server("--requirepass", "right+secret") as server:
        for url, password in ((server.url, None), (server.url, "wrong+secret")):
            with refusing("it does not let us in: give the right user and password"):
                async with RedisStore(url, password=password, timeout=0.5):
                    raise AssertionError("it was let in")
        async with RedisStore(server.url.replace("unix://", "unix://:right%2Bsecret@")) as store:
            await store.create_session("s")
            assert "secret" not in repr(store)
        async with RedisStore(server.url, password="right+secret") as store:
            assert await store.list_sessions() == ["s"]
    assert "secret" not in caplog.text


async def test_a_user_needs_no_more_rights_than_the_docs_say() -> None:
    page = (Path(snakepit.__file__).parent.parent / "docs" / "state.md").read_text()
    (line,) = re.findall(r"`(ACL SETUSER .*)`", page)
    with redis_server() as server:
        assert server.ask(*line.split()) == "OK"
        async with RedisStore(server.url, username="tools", password="PASSWORD") as store:
            await with_counter(store)
            async with store.of("s").watch("n") as updates:
                assert await count(store) == 1
                assert (await anext(updates)).value == 1
            assert await store.delete_session("s")
            server.ask("ACL", "SETUSER", "tools", "-publish")
            with refusing("this user may not do that there"):
                await store.create_session("s")
        for prefix, lacks in (("snakepit", "PUBLISH"), ("other", "channel")):
            with refusing(rf"this user may not do that there \(.*({lacks})"):
                async with RedisStore(server.url, username="tools", password="PASSWORD", prefix=prefix, timeout=0.5):
                    pass


async def test_a_disk_that_fails_is_told_of() -> None:
    with redis_server() as server:
        async with RedisStore(server.url) as store:
            await with_counter(store)
            (server.folder / "dump.rdb").mkdir()  # in the place of the snapshot
            server.ask("CONFIG", "SET", "save", "3600 1")
            server.ask("BGSAVE")
            server.wait_until("INFO", "persistence", "rdb_last_bgsave_status:err")
            with refusing("it cannot write to its disk"):
                await count(store)
            (server.folder / "dump.rdb").rmdir()
            server.ask("BGSAVE")
            server.wait_until("INFO", "persistence", "rdb_last_bgsave_status:ok")
            assert await count(store) == 1


async def test_a_replica_alone_is_no_store() -> None:
    with redis_server(has_port=True) as primary, redis_server(has_port=True) as replica:
        replica.follow(primary)
        with refusing("it is a slave, and no primary|it is a replica, and no primary"):
            async with RedisStore(replica.url, timeout=0.5):
                pass
        async with RedisStore(replica.url, primary.url, timeout=20, replicas=1) as store:
            await with_counter(store)
            replica.promote()
            primary.ask("REPLICAOF", "127.0.0.1", str(replica.port))  # it is demoted while we use it
            assert await count(store) == 1


async def test_too_few_replicas_are_told_of() -> None:
    with redis_server() as server:
        async with RedisStore(server.url, timeout=0.5, replicas=1) as store:
            with refusing(r"0 of 1 replicas have the change.*Nobody knows whether the change was made"):
                await store.create_session("s")


async def test_no_server_at_all(tmp_path: Path) -> None:
    with trio.fail_after(20), refusing("could be used within 0.3 seconds .*(No such file|failed)"):
        async with RedisStore(f"unix://{tmp_path}/none", "redis://127.0.0.1:1", timeout=0.3):
            pass


async def test_a_server_that_stands_still_is_told_of_and_its_log_is_short(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as server:
        async with RedisStore(server.url, timeout=0.5) as store:
            server.pause()
            with refusing("no answer for .* seconds"):
                await store.create_session("s")
            with refusing("no answer for .* seconds"):
                async with RedisStore(server.url, timeout=0.5):
                    pass
        assert {record.name for record in caplog.records} == {"snakepit.state.redis"}
        server.resume()


async def test_keys_of_another_program_are_told_of(redis: RedisServer) -> None:
    async with RedisStore(redis.url, prefix="foreign") as store:
        redis.ask("SET", "{foreign}:s:s", "theirs")
        with refusing("another program uses the keys"):
            await store.of("s").get_variable("n")
        await with_counter(store, "t")
        redis.ask("HSET", "{foreign}:s:t", ".vn", "theirs", "v", "9")
        redis.ask("ZADD", "{foreign}:z:t", "9", "vn")
        with pytest.raises(snakepit.StoreCorrupt, match="session 't'.*variable 'n' in the store cannot be read"):
            await store.of("t").get_variable("n")
        redis.ask("HSET", "{foreign}:s:t", "v", "theirs")
        with pytest.raises(snakepit.StoreCorrupt, match="answers what is no answer"):
            await store.of("t").get_variable("n")
        redis.ask("HSET", "{foreign}:counts", "format", "2")
    with pytest.raises(snakepit.UsageError, match="'foreign'.*have the format '2'.*reads the format '1'"):
        async with RedisStore(redis.url, prefix="foreign"):
            pass


async def test_what_is_too_large_for_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with redis_store() as store:
        await store.create_session("s")
        await store.of("s").register_variable("x", value="x" * 5_000_000)
        monkeypatch.setattr(backend, "_LARGEST", 1000)
        with pytest.raises(snakepit.QuotaExceeded, match="'x' takes .* bytes with its history"):
            await store.of("s").update_variable("x", "y" * 1000)
        assert len(await store.of("s").get_variable_value("x")) == 5_000_000


async def test_a_server_that_throws_sessions_away_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with RedisStore(server.url) as store:
            await with_counter(store)
            assert "throws sessions away when its memory is full (maxmemory-policy is allkeys-lru)" in caplog.text
            server.ask("DEL", "{snakepit}:s:s")  # as an eviction does
            with pytest.raises(snakepit.SessionNotFound):
                await count(store)
            assert (await store.get_stats()).sessions == 0


# Connections.


async def answer_anything(stream: trio.SocketStream) -> None:
    """A server whose answers never end."""
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(b"$99999999999\r\n")
            while True:
                await stream.send_all(b"x" * 1_000_000)


async def test_an_answer_that_never_ends_is_left() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer_anything, 0, host="127.0.0.1"))
        url = f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with refusing("its answer has more than 16779216 bytes"):
            async with RedisStore(url, timeout=3, quotas=snakepit.Quotas(bytes=1000)):
                pass
        nursery.cancel_scope.cancel()


async def answer_nonsense(stream: trio.SocketStream) -> None:
    """A server that speaks another protocol."""
    with contextlib.suppress(trio.BrokenResourceError):  # the store leaves while words of it are not read yet
        async with stream:
            async for _ in stream:
                await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_what_is_no_redis_is_told_of() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer_nonsense, 0, host="127.0.0.1"))
        with refusing("Unknown RESP data type"):
            async with RedisStore(f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}", timeout=0.5):
                pass
        nursery.cancel_scope.cancel()


async def test_tls(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    authority.server("server", ["127.0.0.1"])
    files = [f"--tls-{name}-file" for name in ("cert", "key", "ca-cert")]
    paths = [str(tmp_path / "server.pem"), str(tmp_path / "server.key"), str(authority.file)]
    settings = [word for pair in zip(files, paths, strict=True) for word in pair]
    with redis_server(*settings, "--tls-auth-clients", "no", has_port=True, tls=True) as server:
        async with RedisStore(server.url, ssl_context=authority.client()) as store:
            await with_counter(store)
            assert await count(store) == 1
        for context in (other.client(), None):
            with refusing("certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
                async with RedisStore(server.url, ssl_context=context, timeout=1):
                    pass
        with refusing("localhost"):
            wrong_name = server.url.replace("127.0.0.1", "localhost")
            async with RedisStore(wrong_name, ssl_context=authority.client(), timeout=1):
                pass


async def test_scripts_that_the_server_forgets_are_sent_again(redis: RedisServer) -> None:
    async with redis_store() as store:
        await with_counter(store)
        redis.ask("SCRIPT", "FLUSH")
        assert await count(store) == 1


async def test_watchers_see_what_was_changed_while_the_connection_was_cut(redis: RedisServer) -> None:
    async with RedisStore(redis.url, prefix="cut", recheck=1000) as one, RedisStore(redis.url, prefix="cut") as other:
        await with_counter(one)
        async with one.of("s").watch("n") as updates:
            for value in range(1, 11):
                redis.ask("CLIENT", "KILL", "TYPE", "pubsub")  # each store has one connection, for notices too
                await count(other)
                with trio.fail_after(30):
                    while (await anext(updates)).value != value:
                        pass


async def test_cancelled_commands_leave_no_answer_behind(redis: RedisServer) -> None:
    async with redis_store() as store:
        for number in range(20):
            await store.create_session(f"s{number}")
            await store.of(f"s{number}").register_variable("me", value=number)

        async def read(number: int, patience: float) -> None:
            with trio.move_on_after(patience):
                for _ in range(5):
                    assert await store.of(f"s{number}").get_variable_value("me") == number

        async with trio.open_nursery() as nursery:
            for turn in range(10):
                for number in range(20):
                    nursery.start_soon(read, number, 0.0005 * turn)
        for number in range(20):
            await read(number, 30)


async def test_calls_of_a_pool_whose_store_is_gone_fail_in_time_and_the_pool_lives_on() -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        async with (
            RedisStore(server.url, timeout=0.5) as store,
            snakepit.open_pool(TOOLS, workers=1, store=store) as pool,
            pool.session("s") as session,
        ):
            await session.execute("put_item", {"name": "x", "value": 1})
            server.kill()
            with trio.fail_after(30):
                with pytest.raises(snakepit.StoreUnavailable, match="could be used within 0.5 seconds"):
                    await session.execute("put_item", {"name": "x", "value": 2})
                with pytest.raises(snakepit.StoreUnavailable, match="could be used within 0.5 seconds"):
                    await session.get_variable("x")
                with pytest.raises(snakepit.UnknownTool):
                    await pool.execute("nothing")
                assert pool.get_stats().workers == 1
            await trio.to_thread.run_sync(server.start)
            assert await session.execute("item", {"name": "x"}) in (1, 2)
            await session.execute("put_item", {"name": "x", "value": 3})
            assert await session.get_variable_value("x") == 3


async def test_what_a_failover_has_lost_is_not_remembered() -> None:
    """Without `replicas`, a failover may lose updates. No host may go on with a copy of what never was."""
    with redis_server(has_port=True) as primary, redis_server(has_port=True) as replica:
        urls = primary.url, replica.url
        async with RedisStore(*urls, timeout=20) as one, RedisStore(*urls, timeout=20) as other:
            for name in ("s", "again"):
                await with_counter(one, name)
            await count(one)
            replica.follow(primary)
            replica.ask("CONFIG", "SET", "masterauth", "wrong")
            primary.ask("CONFIG", "SET", "requirepass", "other")  # no more replication, and no new connections
            primary.ask("-a", "other", "CLIENT", "KILL", "TYPE", "replica")
            assert await count(one, by=10) == 11
            await one.of("s").register_variable("lost", value=1)
            await one.delete_session("again")
            await with_counter(one, "again")
            await count(one, "again", by=100)
            seen: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(see, one, seen)
                primary.kill()
                replica.promote()
                assert await count(other) == 2
                assert await count(other) == 3
                assert await one.of("s").get_variable_value("n") == 3
                assert not await one.of("s").has_variable("lost")
                assert await one.of("again").get_variable_value("n") == 0
                with trio.fail_after(30):
                    while seen[-1:] != [3]:
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()


async def see(store: RedisStore, seen: list[Any]) -> None:
    async with store.of("s").watch("n") as updates:
        async for update in updates:
            seen.append(update.value)  # noqa: PERF401 - the list is read meanwhile


# Arguments.


def test_without_coredis_the_extra_is_named() -> None:
    code = "import sys; sys.modules['coredis'] = None; import snakepit_trio.state.redis"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert "UsageError: RedisStore needs the package coredis: pip install 'snakepit-trio[redis]'" in done.stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (RedisStore, "needs the address of a server"),
        (lambda: RedisStore("redis://there", prefix="a{b"), "prefix='a{b': give text without braces"),
        (lambda: RedisStore("redis://there", prefix=""), "prefix='': give text"),
        (lambda: RedisStore("redis://there", timeout=0), "timeout=0: give seconds"),
        (lambda: RedisStore("redis://there", replicas=-1), "replicas=-1: give a whole number"),
        (lambda: RedisStore("redis://there", recheck=0), "recheck=0: give seconds, more than 0"),
        (lambda: RedisStore("redis://there", cache_sessions=-1), "cache_sessions=-1: give a whole number"),
        (lambda: RedisStore("redis://there", quotas=5), r"quotas=5: give Quotas\(...\)"),  # type: ignore[arg-type]  # it is what must be refused
        (lambda: RedisStore("redis://there", ssl_context=ssl.create_default_context()), "is not encrypted"),
    ],
    ids=["no-url", "braces", "no-prefix", "timeout", "replicas", "recheck", "cache", "quotas", "tls"],
)
def test_arguments_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        make()
