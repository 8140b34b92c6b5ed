"""`python -m docs.drawing [life] [benchmarks] [dashboard]`: makes these pictures, by default all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import dashboard, life, plot

FOLDER: Final = Path(__file__).parents[1] / "pictures"
#: Pictures that are the same each time, by their file: tests compare them with the files.
DRAWN: Final[dict[str, Callable[[], str]]] = {"life.svg": life.draw, "benchmarks.svg": plot.draw}


def main() -> None:
    """Make the pictures that are named."""
    parser = argparse.ArgumentParser(prog="python -m docs.drawing", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", default=["life", "benchmarks", "dashboard"])
    names = parser.parse_args().names
    FOLDER.mkdir(exist_ok=True)
    for file, draw in DRAWN.items():
        if file.removesuffix(".svg") in names:
            (FOLDER / file).write_text(draw())
    if "dashboard" in names:
        dashboard.take(FOLDER / "dashboard.png")


if __name__ == "__main__":
    main()
