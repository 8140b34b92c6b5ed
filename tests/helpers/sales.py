"""A table of sales, and what process_large_dataset makes of it in this process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.csv

from bridge_py.adapters.streams import dataset
from bridge_py.adapters.streams.configs import Operation

# pyarrow makes a pipe for its signal handling when it first reads, and keeps it.
pyarrow.csv.read_csv(io.BytesIO(b"x\n1\n"))

ALL: list[Operation] = ["clean", "transform", "aggregate"]


def run(path: Path, chunk_size: int = 100, operations: list[Operation] = ALL, **more: Any) -> list[dict[str, Any]]:
    return list(dataset.process(str(path), chunk_size, operations, **more))


def final_stats(path: Path, **more: Any) -> dict[str, Any]:
    stats: dict[str, Any] = run(path, **more)[-1]["final_stats"]
    return stats


def write_sales(path: Path) -> Path:
    """A table of 3,000 rows, of which some lack a price, and some have an odd one."""
    rng = np.random.default_rng(1)
    prices = [f"{price:.4f}" for price in rng.normal(1e6, 3, 3000)]
    prices[5::100] = [""] * 30
    prices[7::500] = ["n/a"] * 6
    columns = {
        "price": prices,
        "region": rng.choice(["North", " NORTH ", "east", "South  West"], 3000),
        "quantity": rng.integers(0, 100, 3000),
        "customer": [f"customer {number}" for number in range(3000)],
    }
    pd.DataFrame(columns).to_csv(path, index=False)
    return path
