"""Arrays to and from peers with the habits of the Elixir system's Python workers and clients, which pickle them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import snakepit_trio as snakepit
from bridge_py.contract.statuses import error_of_status
from tests.helpers.google_peer import stubs as google_stubs
from tests.peers.test_grpc_server import LONGEST, run_checks

THEIRS = Path(google_stubs.__file__).with_name("their_worker.py")
TOOLS = "tests.helpers.their_tools:TheirTools"
Contract = Literal["0.4", "0.13"]
Large = Literal["json", "pickle"]
SHAPES = [(1281,), (100, 100), (131_072,), (1250, 1000)]

pytestmark = pytest.mark.timeout(LONGEST + 60)


@pytest.fixture
def opened(stubs: Path) -> Callable[..., Any]:
    """Opens a pool of one such worker."""

    def opens(contract: Contract, large_values: Large, **options: Any) -> Any:
        more: dict[str, Any] = {"args": ["--contract", contract], "allow_pickle": True, **options}
        adapter = snakepit.GrpcBridge(script=THEIRS, contract=contract, large_values=large_values, **more)
        return snakepit.open_pool(adapter, env={"GOOGLE_STUBS": str(stubs)}, workers=1)

    return opens


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.slow
@pytest.mark.parametrize("large_values", ["json", "pickle"])
@pytest.mark.parametrize("contract", ["0.4", "0.13"])
async def test_large_arrays_there_and_back(opened: Any, contract: Contract, large_values: Large) -> None:
    async with opened(contract, large_values) as pool, pool.session() as session:

        def given(value: Any) -> Any:
            return np.asarray(value["data"] if isinstance(value, dict) else value, dtype=float)

        pool.expose(given)
        await session.register_variable("x", "tensor", [0.0])
        # 10 MB of text take several seconds each way, so two of the four are enough.
        has_all = (contract, large_values) in {("0.4", "json"), ("0.13", "pickle")}
        for shape in SHAPES if has_all else SHAPES[:-1]:
            array = np.arange(math.prod(shape), dtype=float).reshape(shape)
            is_pickled = large_values == "pickle" and shape[0] > 1280  # only the outer list counts
            assert await session.execute("form", {"value": array}) == ("pickle" if is_pickled else "json")
            assert plain(await session.execute("echo", {"value": array}, timeout=LONGEST)) == array.tolist()
            await session.update_variable("x", array)
            found = await session.execute("get_var", {"name": "x"}, timeout=LONGEST)
            assert plain(found) == array.tolist()
            packed = {"shape": list(shape), "data": array.tolist()}
            await session.execute("set_var", {"name": "x", "value": packed}, timeout=LONGEST)
            assert plain(await session.get_variable_value("x")) == array.tolist()
            found = await session.execute("call_host", {"tool": "given", "args": {"value": packed}}, timeout=LONGEST)
            assert plain(found) == array.tolist()
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("large_values", ["json", "pickle"])
async def test_numbers_that_are_not_finite_are_numbers_there(opened: Any, large_values: Large) -> None:
    async with opened("0.13", large_values) as pool, pool.session() as session:
        pool.expose(lambda: np.array([math.nan, 1.0]), name="some")
        array = np.array([math.nan, math.inf, -math.inf, 0.5])
        assert await session.execute("types", {"value": array}) == ["float"]
        assert np.array_equal(await session.execute("echo", {"value": array}), array, equal_nan=True)
        for kind in ("tensor", "embedding"):
            await session.register_variable(kind, kind, array)
            found = await session.execute("get_var", {"name": kind})
            assert np.array_equal(found, array, equal_nan=True)
        found = await session.execute("call_host", {"tool": "some", "args": {}})
        assert np.array_equal(found, [math.nan, 1.0], equal_nan=True)
        assert math.isnan(await pool.execute("echo", {"value": math.nan}))


@pytest.mark.parametrize(("contract", "variables"), [("0.4", 2), ("0.13", 1)])
async def test_the_session_that_they_are_told_of(opened: Any, contract: Contract, variables: int) -> None:
    async with opened(contract, "json") as pool, pool.session() as session:
        pool.expose(grid)
        await session.register_variable("x", "integer", 1)
        await session.register_variable("y", "integer", 1)
        # Field 4 counts the variables in 0.4, and the tools in 0.13.
        assert await session.execute("session_field_4") == variables


async def test_a_message_that_is_too_large_for_them_is_no_quota(opened: Any) -> None:
    async with opened("0.4", "json", args=["--habits", "small_messages"]) as pool:
        with pytest.raises(snakepit.ToolError, match=r"RESOURCE_EXHAUSTED.*too large for the peer"):
            await pool.execute("echo", {"value": "x" * 100_000})
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


async def test_pickles_are_read_only_where_they_are_allowed(opened: Any) -> None:
    async with opened("0.4", "json", allow_pickle=False) as pool:
        with pytest.raises(snakepit.DecodeError, match="has not allowed pickle"):
            await pool.execute("echo", {"value": np.arange(1281.0)})
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


async def test_our_client_asks_before_its_first_large_array() -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1, bridge_server=True) as pool,
        snakepit.open_client(pool.bridge_address) as client,
    ):
        # As JSON it would have arrived, and come back, as a list.
        assert isinstance(await client.execute_tool("echo", {"value": np.arange(1281.0)}), np.ndarray)
        long = {"timeout_ms": "9" * 15}
        assert await client.execute_tool("add", {"a": 1, "b": 2}, metadata=long) == 3
        for wrong in ("0", "-1", "1.5", "", "9" * 16, "\u0663"):
            with pytest.raises(snakepit.ToolError, match="timeout_ms="):
                await client.execute_tool("add", {"a": 1, "b": 2}, metadata={"timeout_ms": wrong})


@pytest.mark.parametrize(
    "text",
    [
        "Received message larger than max (5242897 vs. 4194304)",
        "SERVER: Sent message larger than max (1 vs. 0)",
        "grpc: received message larger than max (5242897 vs. 4194304)",
        "a message of 300000000 bytes; it may have 268435456: send it in parts",
    ],
)
def test_how_peers_say_that_a_message_is_too_large(text: str) -> None:
    error = error_of_status(GRPCError(Status.RESOURCE_EXHAUSTED, text))
    assert type(error) is snakepit.RemoteError
    assert error.status == "RESOURCE_EXHAUSTED"


def grid(n: int) -> Any:
    """An array."""
    return np.arange(n, dtype=float)


async def later(value: Any, by: int = 2) -> Any:
    """The value, after tenths of a second."""
    await trio.sleep(by / 10)
    return value


async def test_the_host_for_their_clients(stubs: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "snakepit.bridge")
    async with snakepit.open_pool(TOOLS, workers=2, bridge_server=True, allow_pickle=True) as pool:
        pool.expose(grid)
        pool.expose(later)
        async with pool.session("odd") as session:
            await session.register_variable("a", "integer", 1)
            await session.register_variable("odd", "list", [b"no JSON"])
            await session.register_variable("z", "integer", 1)
            await run_checks(stubs, "theirs", pool.bridge_address)
    assert caplog.text.count("variable 'odd' is left out of answers") == 1
