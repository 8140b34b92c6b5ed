"""Pickles that nobody has asked for: none is read, whatever a worker sends and wherever it puts it."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from bridge_py.wire import codec
from bridge_py.wire.errors import CodecError
from tests.helpers import functions as f
from tests.helpers.forged_worker import pickle_of
from tests.helpers.hostile import open_forged


class Evil:
    """Whoever reads its pickle writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Tools(BaseAdapter):
    @tool
    def fail(self, data: bytes) -> None: ...


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def evil(mark: Path) -> bytes:
    return bytes(sys.version_info[:2]) + pickle.dumps(Evil(mark))


def everywhere(value: Any) -> dict[str, bytes]:
    """Messages with a value at their top, in containers, and in other extensions."""
    ext = msgspec.msgpack.Ext
    encode = msgspec.msgpack.encode
    return {
        "alone": encode(value),
        "list": encode([1, [value]]),
        "dict": encode({"a": value}),
        "tuple": encode(ext(24, encode([value]))),
        "set": encode(ext(2, encode([value]))),
        "pairs": encode(ext(4, encode([[1, value]]))),
        "marked": encode(ext(23, encode(["Point", None, {"x": value}]))),
        "custom": encode(ext(32, encode(["tag", value]))),
        "standard": encode(ext(21, encode(["deque", [[value], None]]))),
        "in a pickle": encode(ext(33, encode(value))),
    }


def test_no_decoder_reads_a_pickle_unless_it_is_told_to(evil: bytes, mark: Path) -> None:
    for name, message in everywhere(pickle_of(evil)).items():
        for read in (
            codec.decode,
            codec.decode_marked,
            lambda data: codec.decode(data, plain=True),
            lambda data: codec.decode(data, b"x" * 100, trusted=True),
        ):
            with pytest.raises(CodecError, match="a pickle has come, and this side takes none"):
                read(message)
                pytest.fail(name)
    assert not mark.exists()


async def test_a_forged_pickle_reaches_nothing_in_a_pool_without_pickles(evil: bytes, mark: Path) -> None:
    async with open_forged() as pool:
        for where in ("alone", "deep"):
            with pytest.raises(snakepit.CodecError, match="a pickle has come, and this side takes none"):
                await pool.run(f.same, evil, where)
        with pytest.raises(snakepit.ToolError, match="forged"):
            await pool.run(f.same, evil, "error")
        with pytest.raises(snakepit.CodecError, match="this side takes none"):
            async with pool.iterate(f.points, evil, "alone") as chunks:  # type: ignore[call-overload]
                await anext(chunks)
    assert not mark.exists()


@pytest.mark.parametrize("pickles", [False, True])
async def test_no_pickle_is_read_but_of_functions(pickles: bool, evil: bytes, mark: Path) -> None:
    async with open_forged(pickle=pickles) as pool, pool.session() as session:
        await session.register_variable("x", "string", "before")
        await session.store_program("p", {})

        def host_tool(x: Any = None) -> None: ...

        pool.expose(host_tool)
        for message in everywhere(pickle_of(evil)).values():
            for calls in (pool, session):
                with pytest.raises(snakepit.CodecError, match="this side takes none"):
                    await calls.execute("say", {"body": message})
                with pytest.raises(snakepit.CodecError, match="this side takes none"):
                    await calls.execute("say", {"body": message}, returns=f.Point)
        for fails in (
            lambda: pool.execute("fail", {"data": evil}),
            lambda: pool.run(Tools.fail, evil),
            lambda: session.run(Tools.fail, data=evil),
        ):
            with pytest.raises(snakepit.ToolError, match="forged"):
                await fails()
        for verb, *arguments in (
            ("call_host_tool", "host_tool", "PICKLES"),
            ("register_variable", "y", "string", "PICKLE", None, None, None),
            ("update_variable", "x", "PICKLE", None, None),
            ("update_variables", "PICKLES", True, None),
            ("store_program", "q", "PICKLE"),
            ("update_program", "p", "PICKLES"),
            ("get_variable", "PICKLE"),
        ):
            said = await session.execute("ask", {"verb": verb, "arguments": arguments, "pickle": evil})
            assert "a pickle has come, and this side takes none" in said, verb
        assert (await session.get_variable("x")).value == "before"
    assert not mark.exists()


async def test_with_pickles_a_worker_of_another_user_would_be_trusted(evil: bytes, mark: Path) -> None:
    """What SECURITY.md says: this is the price of `pickle=True`, and of nothing else."""
    async with open_forged(pickle=True) as pool:
        await pool.run(f.same, evil, "alone")
    assert mark.exists()
