"""A log file is followed while it grows, through rotation, until the stream is left.

It prints:

    [2025-01-20T15:30:45] ERROR, by ERROR
        2025-01-20T15:30:45 ERROR Database connection failed: timeout after 30 s | before it: 1
    [2025-01-20T15:31:00] FATAL, by FATAL|OutOfMemory
        2025-01-20T15:31:00 FATAL OutOfMemoryError: Java heap space | before it: 2
    calls that still run: 0
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

import snakepit_trio as snakepit


def append(path: Path, text: str) -> None:
    """Log something."""
    with path.open("a") as file:
        file.write(text)


async def main() -> None:
    """Log, rotate, log on; leave when the worst has been seen."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "app.log"
        append(
            log,
            "INFO started\n2025-01-20T15:30:45 ERROR Database connection failed: timeout after 30 s\n",
        )
        arguments = {"log_path": str(log), "patterns": ["ERROR", "FATAL|OutOfMemory"], "from_start": True}
        async with snakepit.open_pool(workers=1) as pool:
            async with pool.stream("tail_and_analyze", arguments) as chunks:
                async for chunk in chunks:
                    print(f"[{chunk['timestamp']}] {chunk['severity']}, by {chunk['pattern_matched']}")
                    print("   ", chunk["log_line"], "| before it:", len(chunk["context"]))
                    if chunk["severity"] == "FATAL":
                        break  # the remote generator has ended when this block is left
                    log.rename(log.with_suffix(".1"))
                    append(log, "2025-01-20T15:31:00 FATAL OutOfMemoryError: Java heap space\n")
            print("calls that still run:", pool.get_stats().running)


if __name__ == "__main__":
    trio.run(main)
