"""Arrays go to workers and come back without a copy on the receiver's side.

It prints:

    (2000, 2000) of float64, calmer: True
    read-only: True
    refused: blur: args.image.pixels[1]: an object of type builtins.object cannot be sent...
"""

from __future__ import annotations

import numpy as np
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool


class Images(BaseAdapter):
    """Tools that work on arrays."""

    @tool
    def blur(self, image: np.ndarray, radius: int = 1) -> np.ndarray:
        """Average each pixel with its neighbours in its row."""
        shifted = [np.roll(image, shift, axis=1) for shift in range(-radius, radius + 1)]
        return np.mean(shifted, axis=0)


async def main() -> None:
    """Send an image of 32 MB, look at what comes back, and see what cannot be sent."""
    image = np.random.default_rng(1).random((2000, 2000))
    async with snakepit.open_pool(Images, workers=2) as pool:
        blurred = await pool.execute("blur", {"image": image})
        print(f"{blurred.shape} of {blurred.dtype}, calmer: {blurred.std() < image.std()}")
        print(f"read-only: {not blurred.flags.writeable}")
        try:
            await pool.execute("blur", {"image": {"pixels": [image, object()]}})
        except snakepit.EncodeError as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    trio.run(main)
