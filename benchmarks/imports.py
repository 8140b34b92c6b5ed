"""What a program and a worker pay for our imports, in milliseconds more than the bare interpreter; and our packages."""

from __future__ import annotations

import importlib.metadata
import math
import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

_BARE: Final = "bare"
_STARTS: Final = {
    _BARE: ["-c", "pass"],
    "import snakepit_trio, ms": ["-c", "import snakepit_trio"],
    "and open_pool, ms": ["-c", "from snakepit_trio import open_pool"],
    "import trio, ms": ["-c", "import trio"],
    "bridge_py --help, ms": ["-m", "bridge_py", "--help"],
    "and a tool, ms": ["-c", "from bridge_py import BaseAdapter, tool"],
}
_OURS: Final = {"snakepit-trio": Path("pyproject.toml"), "snakepit-trio-worker": Path("bridge_py/pyproject.toml")}


def measure(scale: float) -> dict[str, float]:
    """Start interpreters in turn. A figure is the best time less that of a bare one: other programs only add to it."""
    best: dict[str, float] = {}
    for _ in range(max(4, int(20 * scale))):
        for name, start in _STARTS.items():
            best[name] = min(best.get(name, math.inf), _seconds(start))
    bare = best.pop(_BARE)
    return {
        **{name: 1e3 * (found - bare) for name, found in best.items()},
        "packages": float(len(packages() - set(_OURS))),
    }


def _seconds(start: list[str]) -> float:
    """Processor time, which on an idle machine is the time that passes: imports wait for nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *start], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def packages() -> set[str]:
    """The packages that `pip install snakepit-trio` installs on this machine, ours among them."""
    found, left = set[str](), ["snakepit-trio"]
    while left:
        if (name := left.pop().lower().replace("_", "-")) not in found:
            found.add(name)
            needed = map(Requirement, _requires(name))
            left += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def _requires(name: str) -> list[str]:
    if (project := _OURS.get(name)) is None:
        return importlib.metadata.requires(name) or []
    # What is installed as editable tells what was needed when it was installed.
    text = (Path(__file__).parents[1] / project).read_text()
    needed: list[str] = tomllib.loads(text)["project"]["dependencies"]
    return needed
