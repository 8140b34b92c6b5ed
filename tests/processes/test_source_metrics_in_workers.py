"""Source metrics as tools of a real worker."""

from __future__ import annotations

from pathlib import Path

import snakepit_trio as snakepit
from bridge_py.adapters.source_metrics import SourceMetrics, measure_file

ADAPTER = "bridge_py.adapters.source_metrics:SourceMetrics"


async def test_the_tools_in_a_worker(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(f"def {name}(): pass\n")
    async with snakepit.open_pool(ADAPTER, workers=1) as pool:
        record = await pool.execute("measure_file", {"path": str(tmp_path / "a.py")})
        async with pool.stream("measure_tree", {"path": str(tmp_path)}) as chunks:
            records = [chunk async for chunk in chunks]
    assert record == records[0] == measure_file(str(tmp_path / "a.py"))
    assert [record["measured"][0]["name"] for record in records] == ["a", "b"]
    assert sorted(SourceMetrics().tools()) == ["measure_file", "measure_tree"]
