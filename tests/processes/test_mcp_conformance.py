"""The protocol's own conformance suite, against our server. Of its scenarios, those of a server that has tools only."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.agent_tools import Conformance

from .test_mcp import serving

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[1] / "helpers" / "mcp_conformance"
SCENARIOS = [
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-error",
    "tools-call-with-progress",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
]


@pytest.fixture(scope="session")
def suite() -> Path:
    """The suite's program; it is installed, with a Node.js of its own, by the first test that needs it."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm: the suite is in JavaScript")
    program = FOLDER / "node_modules" / ".bin" / "conformance"
    with (FOLDER / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not program.exists():  # it comes last
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=FOLDER, check=True, capture_output=True)
    return program


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_server_conforms(suite: Path, scenario: str, tmp_path: Path) -> None:
    node = FOLDER / "node_modules" / "node" / "bin"
    environment = {**os.environ, "PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}
    async with snakepit.open_pool(Conformance, workers=1) as pool, serving(pool.mcp_app()) as address:
        line = [str(suite), "server", "--url", f"{address}/mcp", "--scenario", scenario]
        run = partial(trio.run_process, line, cwd=tmp_path, env=environment, capture_stdout=True, check=False)
        with trio.fail_after(120):
            done = await run(capture_stderr=True)
    output = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, output
    assert " 0 failed, 0 warnings" in output
