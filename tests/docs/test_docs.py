"""The examples run and print what the docs say; every public name is documented; links lead somewhere."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import bridge_py
import snakepit_trio as snakepit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "first_steps",
            [
                "one call: 42",
                "epoch 0: loss 0.5",
                "epoch 1: loss 0.25",
                "epoch 2: loss 0.125",
                "a thousand calls: 999000",
                "too slow: 'stubborn' was stopped: it did not end within 0.2 s",
                "wrong: double: the argument 'n' does not fit: Expected `int`, got `str` - at `n`",
            ],
        ),
        (
            "arrays",
            [
                "(2000, 2000) of float64, calmer: True",
                "read-only: True",
                "refused: blur: args.image.pixels[1]: an object of type builtins.object cannot be sent",
            ],
        ),
        (
            "state",
            [
                "version after tuning: 4",
                "watched: temperature is 0.7, 3 updates missed",
                "'steps': 3, 'missing': 1}",
                "is below the minimum of float: min=0.0",
                "rolled back to 1.0",
                "a pool is needed: False\na pool is needed: True",
            ],
        ),
        (
            "host_tools",
            [
                "the bill: eleven",
                "longest: cake",
                "no price: KeyError 'wine'",
                "exposed: price, names, in_words",
                "without the session: there is no host tool 'in_words'; there are: price, names",
            ],
        ),
        (
            "batch_inference",
            [
                "1234: 2 (100%), truth: 2",
                "array (8, 8): 0 (",
                "ring.pgm: 0 (",
                "lost.pgm: FileNotFoundError",
                "797 unseen digits, 93.",
            ],
        ),
        (
            "large_dataset",
            [
                "20% (10000 rows)\n40% (20000 rows)\n60% (30000 rows)\n80% (40000 rows)\n100% (50000 rows)\n",
                "{'processed': 49950, 'errors': 25, 'missing': 25, 'skipped': 50}",
                "price: 100.10, give or take 20.02",
                "regions: north, east, south",
            ],
        ),
        (
            "tail_log",
            [
                "[2025-01-20T15:30:45] ERROR, by ERROR",
                "ERROR Database connection failed: timeout after 30 s | before it: 1",
                "[2025-01-20T15:31:00] FATAL, by FATAL|OutOfMemory",
                "FATAL OutOfMemoryError: Java heap space | before it: 2",
                "calls that still run: 0",
            ],
        ),
        (
            "training",
            [
                "alone: 0.9",
                "stopped early: True",
                "together: 0.9",
                "used: 1797 digits, 359 of them unseen, 0.9",
            ],
        ),
        (
            "stock_analysis",
            [
                "AAPL: $118.07 - SELL (RSI: 86.4)",
                "TSLA: $102.82 - BUY (RSI: 21.1)",
                "AAPL: 5 times the usual volume\nTSLA: 5 times the usual volume",
                "TSLA: $81.24 - HOLD (RSI: 27.7)",
            ],
        ),
        (
            "dspy_program",
            [
                "model: dummy",
                "program: question -> reasoning, answer",
                "{'reasoning': 'Air scatters blue light most.', 'answer': 'blue'}",
                "{'field': 'answer', 'piece': 'blue', 'predictor': ''}",
                "{'prediction': {'reasoning': 'Air scatters blue light most.', 'answer': 'blue'}}",
                "the shop says 5 as the host told: 5",
            ],
        ),
        (
            "gpu_per_worker",
            [
                "numbers: [0, 1]\n",
                "worker 0: small(7) on GPU 0\nworker 1: large(7) on GPU 1\n",
            ],
        ),
        ("crash", ["double returned 8", "crash failed: worker pool-", "restarts: 1"]),
    ],
)
def test_an_example_prints_what_it_should(name: str, lines: list[str]) -> None:
    script = ROOT / "docs" / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for line in lines:
        assert line in done.stdout


@pytest.mark.parametrize("module", [snakepit, bridge_py])
def test_every_public_name_has_a_docstring(module: object) -> None:
    missing = []
    for name in module.__all__:  # type: ignore[attr-defined]
        thing = getattr(module, name)
        members = inspect.getmembers(thing) if inspect.isclass(thing) else []
        for member, value in [("", thing), *members]:
            ours = getattr(value, "__module__", "") or ""
            public = (
                inspect.isfunction(value) and not member.startswith("_") and ours.startswith(("snakepit", "bridge"))
            )
            if (value is thing or public) and not inspect.getdoc(value):
                missing.append(f"{name}.{member}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", prose):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_security_and_its_tests_name_each_other() -> None:
    """A line that is meant to hold has a test, and no attack is without its line."""
    named = set(re.findall(r"`(test_\w+)\.py`", (ROOT / "SECURITY.md").read_text()))
    assert named == {path.stem for path in (ROOT / "tests" / "security").glob("test_*.py")}


def test_the_attacks_are_named_where_the_parts_are() -> None:
    """What concerns this project alone is in no row: how it is installed, and how its own errors look."""
    named = set(re.findall(r"\.\./tests/security/(test_\w+)\.py", (ROOT / "docs" / "parity.md").read_text()))
    there = {path.stem for path in (ROOT / "tests" / "security").glob("test_*.py")}
    assert there - named == {"test_supply_chain", "test_text_that_misleads"}


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_readme_shows_code_that_is_in_an_example() -> None:
    _, block = blocks_of("README.md")
    compile(block, "README.md", "exec")
    names = re.findall(r"pool\.(\w+)\(", block)
    assert names
    assert all(hasattr(snakepit.Pool, name) for name in names)


async def test_the_readme_opens_with_three_lines_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = blocks_of("README.md")
    assert len(first.splitlines()) == 3
    names = {"snakepit": snakepit, "math": math, "textwrap": textwrap}
    exec("async def main():\n" + textwrap.indent(first, "    "), names)
    await names["main"]()  # type: ignore[operator]
    assert capsys.readouterr().out == f"{math.comb(60, 30)}\nwhen a [...]\n"
