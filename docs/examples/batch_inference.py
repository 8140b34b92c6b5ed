"""Handwritten digits: by their number in scikit-learn's data set, as an array, and as an image file.

It prints:

    1234: 2 (100%), truth: 2
    array (8, 8): 0 (...
    ring.pgm: 0 (...
    lost.pgm: FileNotFoundError
    797 unseen digits, 93...% right
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import trio

import snakepit_trio as snakepit


async def main() -> None:
    """Recognize three ways of giving an image, and then all digits that the model has not seen."""
    ring = np.zeros((8, 8))
    ring[1:7, 2:6] = 16
    ring[2:6, 3:5] = 0
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "ring.pgm"
        image.write_bytes(b"P5 8 8 16\n" + ring.astype(np.uint8).tobytes())
        items = [1234, ring, str(image), str(image.with_name("lost.pgm"))]
        async with snakepit.open_pool(workers=1) as pool:
            async with pool.stream("batch_inference", {"batch_items": items}) as chunks:
                async for chunk in chunks:
                    if "error" in chunk:
                        print(f"{Path(chunk['item']).name}: {chunk['error'].partition(':')[0]}")
                    elif not chunk["is_final"]:
                        name = Path(str(chunk["item"])).name
                        print(f"{name}: {chunk['prediction']} ({chunk['confidence']:.0f}%), truth: {chunk['truth']}")

            async with pool.stream("batch_inference", {"batch_items": list(range(1000, 1797))}) as chunks:
                final = [chunk async for chunk in chunks][-1]
            print(f"{final['count']} unseen digits, {final['accuracy']:.1%} right")


if __name__ == "__main__":
    trio.run(main)
