"""A worker that ends in order ends with exit code 0, whatever its tools have left, and after what it has registered."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.wire.environment import OPTIONS_VARIABLE, PATH_VARIABLE, search_path
from snakepit_trio._config.config import Launcher, Site
from snakepit_trio.launchers import Local

TOOLS = "tests.helpers.ending_tools:EndingTools"
WORKER = Path(__file__).parents[2] / "bridge_py" / "__main__.py"
LONG = 60.0  # a bound for what must end, and for nothing else


class Watched(Launcher):
    """Local workers, whose processes are kept."""

    def __init__(self) -> None:
        self._local = Local()
        self._processes: list[Any] = []

    def open(self, config: snakepit.PoolConfig) -> Site:
        site = self._local.open(config)
        launch = site.launch

        async def watch(worker_id: str, number: int) -> Any:
            process = await launch(worker_id, number)
            self._processes.append(process)
            return process

        site.launch = watch  # type: ignore[method-assign]
        return site

    def exit_codes(self) -> list[int | None]:
        return [process.exit_code for process in self._processes]


@asynccontextmanager
async def _open(codes: list[int | None], **config: Any) -> AsyncIterator[snakepit.Pool]:
    """A pool whose workers have all the time that they want to end; `codes` are their exit codes afterwards."""
    launcher = Watched()
    async with snakepit.open_pool(
        TOOLS, launcher=launcher, **{"workers": 1, "shutdown_timeout": LONG} | config
    ) as pool:
        yield pool
    codes += launcher.exit_codes()


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("left", ["nothing", "thread", "executors", "busy_executor"])
async def test_the_exit_code_is_0(left: str, concurrency: int, log: Path) -> None:
    codes: list[int | None] = []
    with trio.fail_after(LONG):
        async with _open(codes, concurrency=concurrency, options={"log": str(log)}) as pool:
            assert await pool.execute(left) == "left"
    assert codes == [0]
    assert log.read_text().split() == ["close", "atexit"]


async def test_many_ends() -> None:
    codes: list[int | None] = []
    for _ in range(5):
        async with _open(codes, workers=4) as pool:
            await pool.execute("nothing")
    assert codes == [0] * 20


async def test_temporary_folders_go_and_output_comes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    codes: list[int | None] = []
    async with _open(codes) as pool:
        folder = Path(await pool.execute("folder"))
        assert folder.is_dir()
        await pool.execute("unwritten")
    assert codes == [0]
    assert not folder.exists()
    assert "an unfinished line" in caplog.text


async def test_who_is_told_to_hurry_ends_with_0_too() -> None:
    codes: list[int | None] = []
    async with _open(codes, shutdown_timeout=9) as pool:
        await pool.execute("slow_atexit")
    assert codes == [0]


@pytest.mark.parametrize(("close", "code"), [("raises", 1), ("exits", 3), ("forks", 0)])
async def test_what_closing_raises_is_the_exit_code(
    close: str, code: int, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int | None] = []
    async with _open(codes, options={"log": str(log), "close": close}) as pool:
        await pool.execute("nothing")
    assert codes == [code]
    assert log.read_text().split() == ["close", "atexit"]
    assert ("ValueError: raised in close" in caplog.text) == (close == "raises")


def test_a_worker_of_the_contract_ends_in_order_by_sigterm(log: Path) -> None:
    options = f'{{"log": "{log}"}}'
    command = [sys.executable, str(WORKER), "--adapter", TOOLS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(options)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("GRPC_READY:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0
    assert log.read_text().split() == ["atexit"]


def _environment(options: str) -> dict[str, str]:
    return os.environ | {OPTIONS_VARIABLE: options, PATH_VARIABLE: search_path(sys.path)}
