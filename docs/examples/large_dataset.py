"""A CSV file in constant memory, with progress, and with rows that are not as they should be.

It prints:

    20% (10000 rows)
    40% (20000 rows)
    60% (30000 rows)
    80% (40000 rows)
    100% (50000 rows)
    {'processed': 49950, 'errors': 25, 'missing': 25, 'skipped': 50}
    price: 100.10, give or take 20.02
    regions: north, east, south
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import trio

import snakepit_trio as snakepit


def write_sales(path: Path, rows: int) -> None:
    """Sales in three regions. Each thousandth row has no price, and each two thousandth something else in its place."""
    rng = random.Random(1)  # noqa: S311 - sales of a shop
    with path.open("w") as file:
        file.write("region,price,quantity\n")
        for row in range(rows):
            price = f"{rng.gauss(100, 20):.2f}" if row % 1000 else "" if row % 2000 else "n/a"
            file.write(f"{rng.choice(['North', ' north', 'SOUTH', 'East'])},{price},{rng.randint(1, 9)}\n")


async def main() -> None:
    """Work on 50,000 rows in blocks of 10,000."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sales.csv"
        write_sales(path, 50_000)
        async with snakepit.open_pool(workers=1) as pool:
            arguments = {"file_path": str(path), "chunk_size": 10_000}
            async with pool.stream("process_large_dataset", arguments) as chunks:
                async for chunk in chunks:
                    if not chunk["is_final"]:
                        print(f"{chunk['progress_percent']:.0f}% ({chunk['processed_rows']} rows)")
                        continue
                    stats = chunk["final_stats"]
                    print({name: stats[name] for name in ("processed", "errors", "missing", "skipped")})
                    price, region = stats["columns"]["price"], stats["columns"]["region"]
                    print(f"price: {price['mean']:.2f}, give or take {price['std']:.2f}")
                    print("regions:", ", ".join(region["values"]))


if __name__ == "__main__":
    trio.run(main)
