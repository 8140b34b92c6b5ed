"""Addresses of Redis servers: what they say, what they hide, and which are refused."""

from __future__ import annotations

import ssl

import pytest
from coredis.exceptions import AuthenticationFailureError, ReadOnlyError, ResponseError, WrongTypeError

import snakepit_trio as snakepit
from snakepit_trio.state.redis import RedisStore
from snakepit_trio.state.redis.address import read_address
from snakepit_trio.state.redis.failures import refusal_of


@pytest.mark.parametrize(
    ("url", "shown", "parts"),
    [
        ("redis://there", "redis://there:6379/0", ("there", 6379, 0)),
        ("redis://there:7000/3", "redis://there:7000/3", ("there", 7000, 3)),
        ("redis://there?db=2", "redis://there:6379/2", ("there", 6379, 2)),
        ("redis://[::1]:7000", "redis://::1:7000/0", ("::1", 7000, 0)),
        ("unix:///run/a%20b.sock?db=4", "unix:///run/a b.sock", ("", 6379, 4)),
        ("rediss://me:p%40ss@there", "rediss://there:6379/0", ("there", 6379, 0)),
    ],
)
def test_what_an_address_says(url: str, shown: str, parts: tuple[str, int, int]) -> None:
    found = read_address(url)
    assert str(found) == shown
    assert (found.host, found.port, found.db) == parts


def test_the_url_goes_before_the_arguments() -> None:
    found = read_address("redis://me:p%40ss@there", username="other", password="other")
    assert (found.username, found.password) == ("me", "p@ss")
    found = read_address("redis://:p@there")
    assert (found.username, found.password) == (None, "p")
    found = read_address("unix://me:p@/run/redis.sock")
    assert (found.path, found.username, found.password) == ("/run/redis.sock", "me", "p")
    found = read_address("redis://there", username="me", password="p")
    assert (found.username, found.password) == ("me", "p")


def test_tls_checks_the_server_unless_told_otherwise() -> None:
    found = read_address("rediss://there").tls
    assert found is not None
    assert found.check_hostname
    assert found.verify_mode is ssl.CERT_REQUIRED
    mine = ssl.create_default_context()
    assert read_address("rediss://there", tls=mine).tls is mine
    with pytest.raises(snakepit.UsageError, match="is not encrypted: give rediss://"):
        read_address("redis://there", tls=mine)


def test_no_text_has_the_password() -> None:
    found = read_address("rediss://me:secret@there")
    store = RedisStore("rediss://me:secret@there", "redis://other", password="secret")
    for text in (str(found), repr(found), f"{found}", repr(store)):
        assert "secret" not in text
        assert "me:" not in text
    assert repr(store) == "<RedisStore: <RedisBackend at rediss://there:6379/0, redis://other:6379/0>>"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "there:6379",
        "redis://",
        "unix://",
        "http://me:secret@there",
        "redis://me:secret@there:port",
        "redis://me:secret@there/db",
        "redis://me:secret@there?db=x",
        "redis://me:secret@there?timeout=1",
        "redis://me:secret@there#1",
        "redis://me:secret@[::1",
        None,
        7,
        b"redis://there",
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(url: object) -> None:
    with pytest.raises(snakepit.UsageError, match=r"cannot be read: give redis://") as found:
        read_address(url)  # type: ignore[arg-type]  # it is what must be refused
    assert "secret" not in str(found.value)
    assert found.value.__cause__ is None


@pytest.mark.parametrize(
    ("error", "problem", "passes"),
    [
        (ReadOnlyError("You can't write against a read only replica."), "it is a replica", True),
        (ResponseError("MASTERDOWN Link with MASTER is down"), "lost its primary", True),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), "too few replicas", True),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), "its memory is full", False),
        (
            ResponseError("Error running script (call to f_1): @user_script:1: -OOM command not allowed"),
            "its memory is full",
            False,
        ),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left"), "cannot write to its disk", False),
        (WrongTypeError("Operation against a key"), "another program uses the keys", False),
        (AuthenticationFailureError("invalid username-password pair"), "does not let us in", False),
        (
            ResponseError("The user executing the script can't run this command or subcommand script: 1"),
            "this user may not do that there (The user executing",
            False,
        ),
        (ResponseError("something new"), "it says: something new", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_refusal_means(error: ResponseError, problem: str, passes: bool) -> None:
    found = refusal_of(error)
    assert problem in str(found)
    assert found.passes is passes
