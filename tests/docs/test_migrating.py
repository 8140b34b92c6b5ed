"""The programs of docs/migrating.md: those for other pools, and ours, print the same."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/migrating.md").read_text()
#: What must be installed for the program on the left.
NEEDS: Final = {"trio-parallel": "trio_parallel", "A notebook": "joblib", "joblib": "joblib", "Ray actors": "ray"}
#: Programs as users have them, of which at most one line in ten may change.
WHOLE: Final = ("ProcessPoolExecutor", "trio-parallel", "A notebook")


class Pair(NamedTuple):
    """A section of the page: what it says about changed lines, and its two programs."""

    changed: int
    of: int
    before: str
    after: str


PAIRS: Final = {
    title: Pair(int(changed), int(of), before, after)
    for title, changed, of, before, after in re.findall(
        r"## ([^\n]+)\n\n(?:[^\n]+\n)*?[^\n]*?\b(\d+) of (\d+) lines are changed\.\n\n"
        r"```python\n(.*?)```\n\n```python\n(.*?)```",
        PAGE,
        re.DOTALL,
    )
}


def changed_lines(before: str, after: str) -> int:
    """How many lines are other ones, whichever of the two programs has more of them."""
    left, right = ([line.strip() for line in program.splitlines()] for program in (before, after))
    steps = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return sum(
        max(sum(map(bool, left[a:b])), sum(map(bool, right[c:d]))) for how, a, b, c, d in steps if how != "equal"
    )


def printed(program: str, folder: Path) -> str:
    """What a program prints, run as a script; cells of a notebook are run as one function from standard input."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if "snakepit" not in program:
        # Coverage writes its data when SIGTERM comes, which is how multiprocessing ends its workers.
        environment = {name: value for name, value in environment.items() if not name.startswith("COV")}
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore"]
    if is_notebook := program.startswith("# %%"):
        if "async with" in program:
            program = program.replace("async with", "async def cell():\n  async with").replace(
                "\n    report([", "\n      report(["
            )
            program = re.sub(r"(report\(\[each async for.*\n)", r"\1\nimport trio; trio.run(cell)\n", program)
        command.append("-")
    else:
        (folder / "program.py").write_text(program)
        command.append("program.py")
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(program if is_notebook else "", timeout=200)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it says where it stands
        time.sleep(5)
        os.killpg(process.pid, signal.SIGKILL)  # its workers have the pipes, too
        out, err = process.communicate()
        pytest.fail(f"this program hangs:\n{program}\n{out}\n{err}")
    assert process.returncode == 0, err
    return out


def test_the_page_has_all_sections() -> None:
    sections = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert sections == list(PAIRS)
    assert len(sections) == 6


@pytest.mark.parametrize("title", PAIRS)
def test_the_page_counts_the_changed_lines(title: str) -> None:
    pair = PAIRS[title]
    assert pair.changed == changed_lines(pair.before, pair.after)
    assert pair.of == len(pair.after.splitlines())


@pytest.mark.parametrize("title", WHOLE)
def test_at_most_one_line_in_ten_changes(title: str) -> None:
    pair = PAIRS[title]
    lines = max(len(pair.before.splitlines()), len(pair.after.splitlines()))
    assert 40 <= lines <= 90
    assert pair.changed <= lines / 10


@pytest.mark.slow
@pytest.mark.parametrize("title", PAIRS)
def test_both_programs_print_the_same(title: str, tmp_path: Path) -> None:
    pair = PAIRS[title]
    if importlib.util.find_spec(NEEDS.get(title, "sys")) is None:
        pytest.skip(f"{NEEDS[title]} is not installed")
    assert printed(pair.after, tmp_path) == printed(pair.before, tmp_path) != ""
