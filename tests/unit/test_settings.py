"""A wrong setting, or argument of a method, is refused at once, in one line that names it; and the pool is unharmed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers.workers import TOOLS

TOO_LARGE = 10**30


class BadRepr:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": {"A": 1}}, "env={'A': 1}: give text, such as '1'"),
        ({"env": {"A": None}}, "env={'A': None}: give text"),
        ({"env": {"A": b"1"}}, "env={'A': b'1'}: give text"),
        ({"env": {1: "A"}}, "env={1: 'A'}: give names that are text"),
        ({"env": {"A=B": "1"}}, "env={'A=B': '1'}: give names that are text, with no '='"),
        ({"env": {"": "1"}}, "env={'': '1'}: give names"),
        ({"env": {"A\0": "1"}}, r"env={'A\\x00': '1'}: give names"),
        ({"env": {"A": "\0"}}, r"env={'A': '\\x00'}: give text with no NUL"),
        ({"env": {"A": "\ud800"}}, r"env={'A': '\\ud800'}: give text"),
        ({"env": [("A", "1")]}, r"env=\[.*\]: give a dict"),
        ({"env": "A=1"}, "env='A=1': give a dict"),
        ({"cwd": 3}, "cwd=3: give a path, or None"),
        ({"cwd": b"/tmp"}, "cwd=b'/tmp': give a path"),
        ({"cwd": "a\0b"}, "cwd=.*: give a path"),
        ({"cwd": ""}, "cwd='': give a path"),
        ({"python": 3}, "python=3: give a path"),
        ({"python": None}, "python=None: give a path"),
        ({"python": ""}, "python='': give a path"),
        ({"python": "py\0thon"}, "python=.*: give a path"),
        ({"name": 3}, "name=3: give printable text"),
        ({"name": ""}, "name='': give printable text"),
        ({"name": "a\nb"}, "name=.*: give printable text"),
        ({"name": "\ud800"}, "name=.*: give printable text"),
        ({"name": "x" * 1000}, r"name='xxx.*\.\.\.: give printable text, of at most 100"),
        ({"workers": 2.0}, "workers=2.0: give a whole number"),
        ({"workers": TOO_LARGE}, f"workers={TOO_LARGE}: give a whole number from 1 to {2**63 - 1}"),
        ({"workers": BadRepr()}, "workers=<its repr.. raised ZeroDivisionError>: give"),
        ({"concurrency": 10**9}, "concurrency=1000000000: give a whole number from 1 to 100000"),
        ({"start_timeout": "3"}, "start_timeout='3': give seconds"),
        ({"start_timeout": True}, "start_timeout=True: give seconds"),
        ({"start_timeout": math.nan}, "start_timeout=nan: give seconds"),
        ({"shutdown_timeout": 10**400}, "shutdown_timeout=1000.*: give seconds"),
        ({"ping_interval": 0}, "ping_interval=0: give seconds, more than 0"),
        ({"session_ttl": None}, "session_ttl=None: give seconds"),
        ({"recycle": 100}, "recycle=100: give a snakepit_trio.RecyclePolicy"),
        ({"retry": 3}, "retry=3: give a snakepit_trio.RetryPolicy"),
        ({"quotas": {}}, "quotas={}: give a snakepit_trio.Quotas"),
        ({"affinity": ["hint"]}, r"affinity=\['hint'\]: give one of"),
        ({"allow_debugger": 1}, "allow_debugger=1: give True or False"),
        ({"bridge_server": 8000}, "bridge_server=8000: give True, False, or"),
        ({"bridge_server": "here"}, "bridge_server='here'"),
        ({"open_to": "all"}, "open_to='all': give one of 'user', 'machine'"),
        ({"store": snakepit.MemoryStore(), "quotas": snakepit.Quotas(sessions=1)}, "give them to the store itself"),
        ({"store": {}}, "store={}: give a snakepit_trio.SessionStore, or None"),
        ({"launcher": "ray"}, "no installed package offers the launcher 'ray'"),
        ({"options": {"a": {1, 2}}}, "options: 'a' is no plain JSON value"),
        ({"options": {"a": math.inf}}, "options: 'a' is no plain JSON value"),
        ({"adapter": "a\0b:C"}, "write it as 'package.module:Class'"),
        ({"adapter": None, "adapters": TOOLS}, "adapters='tests.helpers.tools:Tools': give a list"),
        ({"adapter": None, "adapters": 3}, "adapters=3: give a list"),
        ({"adapter": None, "adapters": [3]}, "adapter 3: give"),
    ],
)
async def test_a_wrong_setting_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message) as caught:
        async with snakepit.open_pool(**{"adapter": TOOLS, **settings}):
            pytest.fail("the block was entered")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (snakepit.RecyclePolicy, {"calls": "3"}, "calls='3': give a whole number"),
        (snakepit.RecyclePolicy, {"age": math.nan}, "age=nan: give seconds"),
        (snakepit.RecyclePolicy, {"max_resident_bytes": 1.5}, "max_resident_bytes=1.5: give a whole number"),
        (snakepit.RetryPolicy, {"retries": True}, "retries=True: give a whole number"),
        (snakepit.RetryPolicy, {"first_delay": -1}, "first_delay=-1: give seconds, 0 or more"),
        (snakepit.Quotas, {"sessions": "1"}, "sessions='1': give a whole number"),
        (snakepit.Quotas, {"history": 0}, "history=0: give a whole number of at least 1"),
        (snakepit.GrpcBridge, {"script": 3}, "script=3: give a path"),
        (snakepit.GrpcBridge, {"script": "x", "args": "abc"}, "args='abc': give a list"),
        (snakepit.GrpcBridge, {"script": "x", "args": [1]}, "args=.*: give a list"),
        (snakepit.GrpcBridge, {"script": "x", "python": 3}, "python=3: give text"),
        (snakepit.GrpcBridge, {"script": "x", "contract": "1"}, "contract='1': give one of '0.4', '0.13'"),
        (snakepit.StdioJson, {"script": 3}, "script=3: give a path"),
        (snakepit.StdioJson, {"script": "x.pl", "args": 3}, "args=3: give a list"),
        (snakepit.StdioJson, {"script": "x.pl", "executable": 3}, "executable=3: give the path"),
    ],
)
def test_a_wrong_part_of_a_setting_is_told_in_one_line(kind: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        kind(**given)


async def _entered(manager: Any) -> None:
    async with manager:
        pytest.fail("the block was entered")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda pool: pool.resize("3"), "workers='3': give a whole number"),
        (lambda pool: pool.resize(True), "workers=True: give"),
        (lambda pool: pool.resize(0), "workers=0: give a whole number of at least 1"),
        (lambda pool: pool.workers.start("3"), "number='3': give a whole number"),
        (lambda pool: pool.workers.start(-1), "number=-1: give a whole number of at least 0"),
        (lambda pool: pool.workers.stop(3), "there is no worker 3"),
        (lambda pool: pool.workers.restart([]), r"there is no worker \[\]"),
        (lambda pool: pool.await_ready("3"), "timeout='3': give seconds"),
        (lambda pool: pool.await_ready(math.nan), "timeout=nan: give seconds"),
        (lambda pool: pool.await_ready(-1), "timeout=-1: give seconds"),
        (lambda pool: pool.execute_stream("count", {"n": 1}, 3), "callback=3: give a function"),
        (lambda pool: _entered(pool.map("add", [{"a": 1}], limit="3")), "limit='3': give a whole number"),
        (lambda pool: _entered(pool.map("add", 3)), "items=3: give an iterable"),
        (lambda pool: _entered(pool.map("add", {"a": 1})), "items={'a': 1}: give an iterable of arguments"),
        (lambda pool: _entered(pool.session(3)), "session id 3: give text"),
        (lambda pool: _entered(pool.session([])), r"session id \[\]: give text"),
        (lambda pool: _entered(pool.session("\ud800")), "session id .*: give text that UTF-8 can hold"),
        (lambda pool: _entered(pool.session("a", ttl="3")), "ttl is '3': give seconds"),
        (lambda pool: _entered(pool.session("a", ttl=True)), "ttl is True: give seconds"),
        (lambda pool: _entered(pool.session("a", metadata=3)), "metadata=3: give a dict"),
        (lambda pool: _entered(pool.session("a", metadata={"a": 1})), "metadata={'a': 1}: give a dict"),
        (lambda pool: _entered(pool.session("a", affinity=[])), r"affinity=\[\] is unknown"),
    ],
)
async def test_a_wrong_argument_is_told_and_harms_nobody(use: Callable[[snakepit.Pool], Any], message: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, launcher=InMemory()) as pool:
        with pytest.raises((snakepit.UsageError, snakepit.SessionError), match=message):
            await use(pool)
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.workers.count() == 1


@pytest.mark.parametrize(("function", "message"), [(3, "3 is no function"), (None, "None is no function")])
async def test_what_is_no_host_tool(function: Any, message: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, launcher=InMemory()) as pool:
        with pytest.raises(snakepit.UsageError, match=message):
            pool.expose(function)
        wrong: Any = 3
        with pytest.raises(snakepit.UsageError, match="cannot be called 3"):
            pool.expose(len, name=wrong)


async def test_settings_are_those_of_the_opening() -> None:
    env, options = {"MOOD": "calm"}, {"a": [1]}
    config = snakepit.PoolConfig(adapter=TOOLS, env=env, options=options)
    env["MOOD"] = "wild"
    options["a"].append(2)
    assert (config.env, config.options) == ({"MOOD": "calm"}, {"a": [1]})


@pytest.mark.parametrize(("said", "lane"), [(None, True), ("0", False), ("1", True)])
def test_the_environment_may_switch_the_lane_off(said: str | None, lane: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNAKEPIT_LANE", raising=False)
    if said is not None:
        monkeypatch.setenv("SNAKEPIT_LANE", said)
    assert snakepit.PoolConfig(adapter=TOOLS).lane is lane
    assert snakepit.PoolConfig(adapter=TOOLS, lane=True).lane is True
