"""Our own worker of the contract, which calls back to a host that wants a token and TLS."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from tests.helpers.certificates import Authority
from tests.security.test_tokens_and_tls import ROOT, TOKEN, TOOLS, own_address, serving

OWN = ROOT / "bridge_py" / "__main__.py"


class Peeking(BaseAdapter):
    """Calls a host tool, and looks for the token."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)

    @tool
    def touch(self, ctx: SessionContext) -> Any:
        """Call the host."""
        return ctx.call_host_tool("touch")

    @tool
    def sees_the_token(self) -> bool:
        """Whether code of the adapter, and the programs that it starts, find it in their environment."""
        return "SNAKEPIT_BRIDGE_TOKEN" in self._environment or "SNAKEPIT_BRIDGE_TOKEN" in os.environ


@contextmanager
def worker(address: str, *words: str, **env: str) -> Iterator[str]:
    """Our own worker for a host; yields its address."""
    arguments = [sys.executable, str(OWN), "--adapter", f"{__name__}:Peeking", "--elixir-address", address, *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, **env}, **pipes) as process:
        try:
            assert TOKEN not in " ".join(psutil.Process(process.pid).cmdline())
            yield f"127.0.0.1:{int(process.stdout.readline().rpartition(b':')[2])}"  # type: ignore[union-attr]
        finally:
            process.kill()


async def test_our_own_worker_has_the_token_of_its_host(authority: Authority, context: ssl.SSLContext) -> None:
    host = f"{own_address()}:0"
    async with serving(host, bridge_token=TOKEN, bridge_tls=context) as (pool, touched), pool.session("s"):
        words = ("--elixir-ca", str(authority.file))
        with worker(pool.bridge_address, *words, SNAKEPIT_BRIDGE_TOKEN=TOKEN) as address:
            async with snakepit.open_client(address) as client:
                assert await client.execute_tool("touch", session_id="s") == 1
                assert await client.execute_tool("sees_the_token") is False
        with worker(pool.bridge_address, *words, SNAKEPIT_BRIDGE_TOKEN="x" * 20) as address:
            async with snakepit.open_client(address) as client:
                with pytest.raises(snakepit.SnakepitError, match="the token is wrong"):
                    await client.execute_tool("touch", session_id="s")
        assert touched.count == 1


@pytest.mark.parametrize(
    ("words", "token", "why"),
    [
        ((), TOKEN, "needs TLS and a token"),
        (("--elixir-ca", "{ca}"), None, "needs TLS and a token"),
        (("--elixir-ca", "nothing.pem"), TOKEN, "nothing.pem: no certificate can be read"),
    ],
)
def test_our_own_worker_calls_no_other_machine_without_both(
    authority: Authority, words: tuple[str, ...], token: str | None, why: str
) -> None:
    more = [word.format(ca=authority.file) for word in words]
    command = [sys.executable, str(OWN), "--adapter", TOOLS, "--elixir-address", "192.0.2.1:1", *more]
    env = os.environ | ({} if token is None else {"SNAKEPIT_BRIDGE_TOKEN": token})
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert why in done.stderr
