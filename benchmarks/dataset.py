"""A large CSV file through the showcase's `process_large_dataset`: how fast, and whether memory stays flat."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import psutil

import snakepit_trio as snakepit

ADAPTER = "bridge_py.adapters.showcase:Showcase"
SIZE = 1_000_000_000  # bytes
_ROWS = 100_000  # that are made; the file has them over and over


async def measure(scale: float) -> dict[str, float]:
    """MB a second, and by how many MB the worker and the host have grown at the most after the first tenth."""
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as folder:
        path = Path(folder) / "sales.csv"
        size = _write(path, int(SIZE * scale))
        ours = psutil.Process()
        async with snakepit.open_pool(ADAPTER, workers=1) as pool:
            await pool.execute("ping")
            began = time.perf_counter()
            async with pool.stream("process_large_dataset", {"file_path": str(path)}) as chunks:
                memories = [
                    (chunk["memory_usage_mb"], ours.memory_info().rss / 1e6)
                    async for chunk in chunks
                    if not chunk["is_final"] and chunk["progress_percent"] >= 10
                ]
            seconds = time.perf_counter() - began
    worker, host = (max(values) - values[0] for values in zip(*memories, strict=True))
    return {"dataset MB/s": size / seconds / 1e6, "worker grows, MB": worker, "host grows, MB": host}


def _write(path: Path, size: int) -> int:
    """Sales of a shop, and here and there a row that lacks a price or has something else in its place."""
    rng = random.Random(1)
    rows = []
    for row in range(_ROWS):
        price = f"{rng.gauss(100, 20):.4f}" if row % 1000 else "" if row % 2000 else "n/a"
        day, region = f"2025-{row % 12 + 1:02}-{row % 28 + 1:02}", rng.choice(["North", " south", "EAST", "West "])
        customer = f"customer-{rng.randrange(10**6)}"
        rows.append(f"{row},{day},{region},{customer},{price},{rng.randrange(1, 50)},{rng.random():.6f}\n")
    block = "".join(rows).encode()
    with path.open("wb") as file:
        file.write(b"id,date,region,customer,price,quantity,weight\n")
        while file.tell() < size:
            file.write(block)
        return file.tell()
