"""process_large_dataset in a real worker, also left early."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import psutil
import pytest

import snakepit_trio as snakepit
from bridge_py import InvalidArguments
from tests.helpers.sales import run, write_sales


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A table of 3,000 rows."""
    return write_sales(tmp_path / "sales.csv")


async def test_in_a_worker(sales: Path) -> None:
    async with snakepit.open_pool(workers=1) as pool:
        arguments = {"file_path": str(sales), "chunk_size": 500}
        async with pool.stream("process_large_dataset", arguments) as chunks:
            found = [chunk async for chunk in chunks]
        here = run(sales, 500)
        assert found[-1]["final_stats"] == here[-1]["final_stats"]
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        resident = psutil.Process(worker.pid).memory_info().rss / 1e6
        assert found[-1]["memory_usage_mb"] == pytest.approx(resident, rel=0.2)
        with pytest.raises(InvalidArguments, match="operations") as caught:
            async with pool.stream("process_large_dataset", {**arguments, "operations": ["wash"]}) as chunks:
                await anext(chunks)
        assert caught.value.parameter == "operations"


async def test_leaving_early_stops_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["x", "y"], *([number, "text"] for number in range(200_000))])
    async with snakepit.open_pool(workers=1, cancel_grace=60) as pool:
        pid = (await pool.execute("ping"))["pid"]
        async with pool.stream("process_large_dataset", {"file_path": str(path), "chunk_size": 10}) as chunks:
            assert (await anext(chunks))["progress_percent"] < 1
        assert pool.get_stats().running == 0
        assert str(path) not in {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert (await pool.execute("ping"))["pid"] == pid
