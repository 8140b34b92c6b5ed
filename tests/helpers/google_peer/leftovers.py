"""Checks of what is in no other group: methods that there are not, and many threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from connection import (  # type: ignore[import-not-found]  # beside this script
    PATIENCE,
    THREADS,
    Client,
    Code,
    check,
    read_to_end,
    refused,
    result_of,
)


@check("host", "worker")
def unknown_methods(client: Client) -> None:
    with refused(Code.UNIMPLEMENTED):
        client.raw("NoSuchMethod", b"")
    other = client.channel.unary_unary("/no.Such/Service", request_serializer=bytes, response_deserializer=bytes)
    with refused(Code.UNIMPLEMENTED):
        other(b"", timeout=PATIENCE)


@check("host")
def many_threads(client: Client) -> None:
    client.open("threads")
    client.register("threads", "n", "integer", 0)

    def work(thread: int) -> None:
        for turn in range(5):
            number = 100 * thread + turn
            assert client.call("Ping", message=str(number)).message == str(number)
            assert client.execute("add", a=number, b=1) == number + 1
            assert result_of(client.execute_host_tool("triple", n=number)) == 3 * number
            client.register("threads", f"v{number}", "integer", number)
            assert client.variable("threads", f"v{number}").value.value == str(number).encode()
            assert read_to_end("count", client.chunks("count", n=3)) == [{"i": i} for i in range(3)]
            while not increments(client):
                pass

    in_threads(work)
    assert client.variable("threads", "n").value.value == b"%d" % (5 * THREADS)
    assert client.call("GetSession", session_id="threads").variable_count == 5 * THREADS + 1


def increments(client: Client) -> bool:
    """Add one to n, unless somebody else was faster."""
    found = client.variable("threads", "n")
    try:
        client.set("threads", "n", "integer", int(found.value.value) + 1, expected_version=found.version)
    except grpc.RpcError as error:
        if error.code() != Code.ABORTED:
            raise
        return False
    return True


def in_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [None] * THREADS


@check("worker")
def many_threads_of_a_worker(client: Client) -> None:
    def work(thread: int) -> None:
        for turn in range(5):
            number = 100 * thread + turn
            assert client.execute("add", f"thread {thread}", a=number, b=1) == number + 1
            assert client.execute("call_host", f"thread {thread}", tool="triple", args={"n": number}) == 3 * number
            assert read_to_end("count", client.chunks("count", n=3)) == [{"i": i} for i in range(3)]

    in_threads(work)
