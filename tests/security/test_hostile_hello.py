"""Hellos with wrong, endless and misleading parts: each is refused in words, and the host goes on."""

from __future__ import annotations

import re

import pytest

import snakepit_trio as snakepit
from bridge_py import BaseAdapter
from bridge_py.buffers.buffer_sets import Sizes
from bridge_py.link.endpoint import LinkEndpoint
from bridge_py.wire import codec
from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import Frame, Kind, encode_batch
from tests.helpers.hostile import ROOT, open_hostile


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("hello_list", "its hello is broken: Expected `object`, got `array`"),
        ("hello_deep", "its hello is broken"),
        ("hello_extension", "its hello is broken: Expected `str`, got `ext`"),
        ("secret_not_ascii", "its hello has the wrong secret"),
        ("secret_number", "Expected `str`, got `int` - at `.*secret`"),
        ("protocol_nan", "Expected `int`"),
        ("pid_negative", "Expected `int` >= 0"),
        ("pid_huge", "Expected `int` <= 4294967295"),
        ("zstd_list", "Expected `bool`, got `array`"),
        ("python_long", "Expected `str` of length <= 100"),
        ("timeout_nan", "tool 't' has the timeout nan"),
        ("timeout_negative", "tool 't' has the timeout -1.0"),
        ("timeout_text", "its hello describes its tools wrongly: Expected `float | null`, got `str`"),
        ("many_tools", "10001 tools; a worker may have 10000"),
        ("same_name", "a tool has the name 't', and so has another one"),
        ("no_name", "a tool has the name '': give it 1 to 1000 printable"),
        ("long_name", "a tool has the name 't+: give it 1 to 1000 printable"),
        ("evil_name", r"a tool has the name 'a\\x1b\[2J"),
        ("many_parameters", "tool 't' has 1001 parameters; it may have 1000"),
        ("evil_parameter", r"a parameter of tool 't' has the name 'a\\x1b\[2J"),
        ("evil_enum", r"Invalid enum value 'a\\x1b\[2Jb\\x07\\u2028c\\u202ed\\x9be\\x00\\r<'"),
        ("large", "its hello has 17825[0-9]+ bytes; it may have 16777216"),
    ],
)
async def test_a_hello_that_breaks_a_rule_is_a_failed_start(how: str, message: str) -> None:
    with pytest.raises(snakepit.WorkerStartError, match=message) as caught:
        async with open_hostile(how):
            pytest.fail("the block was entered")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2_000


async def test_descriptions_are_cut_and_readable() -> None:
    async with open_hostile("evil_description") as pool:
        (tool,) = pool._dispatcher.tools.values()
    assert tool.description.startswith(r"a\x1b[2Jb\x07\u2028c\u202ed\x9be\x00\x0d<ddd")
    assert tool.description.endswith("... (200016 characters)")
    assert len(tool.description) < 110_000


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"secret": "wrong"}, "its hello has the wrong secret"),
        ({"secret": "\u00e9"}, "its hello has the wrong secret"),
        ({"protocol": 99}, "it speaks version 99 of the link, we speak 1"),
        ({"pid": "1"}, "Expected `int`, got `str`"),
        ({"pid": -1}, "Expected `int` >= 0"),
        ({"lane": "yes"}, "Expected `bool`, got `str`"),
    ],
)
def test_a_worker_checks_its_host_likewise(part: dict[str, object], message: str) -> None:
    hello = {"protocol": 1, "secret": "s", "pid": 1, "zstd": False, "lane": False} | part
    endpoint = LinkEndpoint(_Adapter(), "s", Sizes(), _Driver(), lambda: None)
    endpoint.begin(None)  # type: ignore[arg-type]  # no call comes, so it needs no executor
    endpoint._executor = object()  # type: ignore[assignment]  # the same
    with pytest.raises(RemoteProtocolError, match=message):
        endpoint.receive(encode_batch([Frame(Kind.HELLO, body=codec.encode_plain(hello))]))


class _Adapter(BaseAdapter):
    """An adapter without tools."""


class _Driver:
    """Moves nothing."""

    def post(self, verb: str) -> None: ...
    def later(self, seconds: float, function: object, *args: object) -> None: ...
    def flush(self) -> None: ...

    def clock(self) -> float:
        return 0.0

    def make_queue(self) -> None: ...


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("many", "10001 tools; a worker may have 10000"),
        ("many_by_and_by", "a worker may have 10000 tools of 16777216 bytes together; this one has 10001 tools of"),
        ("large_by_and_by", "a worker may have 10000 tools of 16777216 bytes together; this one has 201 tools of"),
        ("same_name", "a tool has the name 't', and so has another one"),
        ("no_name", "a tool has the name '': give it 1 to 1000 printable"),
        ("long_name", "a tool has the name 't+: give it 1 to 1000 printable"),
        ("evil_name", r"a tool has the name 'a\\x1b\[2J"),
        ("many_parameters", "tool 't' has 1001 parameters; it may have 1000"),
        ("evil_parameter", r"a parameter of tool 't' has the name 'a\\x1b\[2J"),
        ("evil_description", "taken"),
        ("again", "taken"),
    ],
)
async def test_tools_that_a_foreign_worker_tells_of_are_checked_likewise(how: str, answer: str) -> None:
    script = ROOT / "tests" / "helpers" / "announcing_worker.py"
    adapter = snakepit.GrpcBridge(script=script, adapter="tests.helpers.announcing_worker:Announcing")
    async with snakepit.open_pool(adapter, workers=1, env={"PYTHONPATH": str(ROOT)}) as pool, pool.session() as session:
        assert re.search(answer, await session.execute("announce", {"how": how}, timeout=60))
        known = pool.tools.list_tools(session.id)
        assert len(known) <= 10_001
        assert all(tool.name.isprintable() and tool.spec.description.isprintable() for tool in known)
