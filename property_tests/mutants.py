"""`make mutants`: a test of the tests. Faults are put into a copy of the code, and a property test must find each.

Each mutant is one place in the source, changed. A mutant that no test finds within a minute has survived, and that is a
failure, as it is if the unchanged copy fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent
LIMIT = 60.0  # seconds
POOL = "property_tests/test_pool.py::test_when_a_call_is_over_it_is_over"
MACHINE = "property_tests/test_pool.py::TestInMemory"
SCHEDULER = "property_tests/test_scheduler.py"
ORDER = "property_tests/test_scheduler_order.py"
STORE = "property_tests/test_store.py"


@attrs.frozen
class Mutant:
    """A fault: in a file, `old` becomes `new`. `tests` find it, each of them."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...] = (POOL,)

    def changed(self) -> str:
        """The file with the fault in it. Raises `ValueError` if the place is not there just once."""
        text = (ROOT / self.path).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: the text to change is {text.count(self.old)} times in {self.path}")
        return text.replace(self.old, self.new)


MUTANTS = [
    Mutant(
        "a lost credit",
        "snakepit_trio/_calls/streams.py",
        "call.worker.grant(call, self._taken)",
        "call.worker.grant(call, self._taken - 1)",
    ),
    Mutant(
        "a double release of a worker",
        "snakepit_trio/_calls/scheduler.py",
        "        sample = now - max(slot.last_progress, call.assigned_at)\n",
        "        slot.calls.pop(next(iter(slot.calls), 0), None)\n"
        "        sample = now - max(slot.last_progress, call.assigned_at)\n",
        (SCHEDULER,),
    ),
    Mutant(
        "a priority without ageing",
        "snakepit_trio/_calls/scheduler.py",
        "call.rank = now - AGEING * call.priority",
        "call.rank = -AGEING * call.priority",
        (ORDER,),
    ),
    Mutant(
        "an unshielded reap",
        "snakepit_trio/_workers/worker_process.py",
        "else process.reap_seconds, shield=True) as reaping",
        "else process.reap_seconds) as reaping",
    ),
    Mutant(
        "a missed invalidation",
        "snakepit_trio/_requests/worker_requests.py",
        "        self._link.conversation.link(Kind.INVALIDATE",
        "        0 and self._link.conversation.link(Kind.INVALIDATE",
    ),
    Mutant(
        "a dropped cancel",
        "snakepit_trio/_connections/link.py",
        "            self.conversation.cancel(call_id)\n",
        "            pass\n",
        (POOL, MACHINE),
    ),
    Mutant(
        "a ledger that is not looked at",
        "snakepit_trio/_calls/dispatcher.py",
        "last_started is not None and call_id > last_started and",
        "last_started is not None and",
    ),
    Mutant(
        "a deadline that nobody watches",
        "snakepit_trio/_calls/deadlines.py",
        "                call.is_late = True\n",
        "",
    ),
    Mutant(
        "host tools that outlive their call",
        "snakepit_trio/_requests/host_tool_runs.py",
        "            self._waiting[call.id] = then\n            self.cancel_for(call)\n",
        "            then()\n",
    ),
    Mutant(
        "a worker that is not replaced",
        "snakepit_trio/_workers/supervisor.py",
        "                    await self._restart(nursery)\n",
        "                    return\n",
    ),
]


def main() -> int:
    """Try all mutants; returns how many survived."""
    options = _options()
    unchanged = _run(None, sorted({test for mutant in MUTANTS for test in mutant.tests}))
    print(f"{'unchanged':<40} {_describe(unchanged, expected=False)}", flush=True)
    survived = int(unchanged.failed is not False)
    for mutant in MUTANTS:
        if options.only and options.only not in mutant.name:
            continue
        for test in mutant.tests:
            outcome = _run(mutant, [test])
            survived += not outcome.failed
            print(f"{mutant.name:<40} {_describe(outcome, expected=True)} by {test.rpartition('::')[2]}", flush=True)
    print(f"{survived} survived")
    return survived


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m property_tests.mutants", description=__doc__)
    parser.add_argument("--only", help="part of the name of those to try")
    return parser.parse_args()


@attrs.frozen
class Outcome:
    """What the tests said."""

    failed: bool | None  # None: they have not ended
    seconds: float
    why: str


def _describe(outcome: Outcome, *, expected: bool) -> str:
    if outcome.failed is None:
        return f"NOT AS IT SHOULD: the tests have not ended within {outcome.seconds:.0f} s"
    what = f"found in {outcome.seconds:4.1f} s: {outcome.why[:80]}" if outcome.failed else "passes"
    return what if outcome.failed is expected else f"NOT AS IT SHOULD: {what}"


def _run(mutant: Mutant | None, tests: list[str]) -> Outcome:
    """Run tests in a copy of the code, with a fault in it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("snakepit_trio", "bridge_py", "property_tests", "tests"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        if mutant is not None:
            Path(folder, mutant.path).write_text(mutant.changed())
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["--hypothesis-profile=mutants", *tests]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                env=_environment(folder),
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(None, LIMIT, "")
        return Outcome(done.returncode == 1, time.monotonic() - began, _reason(done.stdout))


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}


def _reason(output: str) -> str:
    """The line of pytest's output that says why."""
    raised = r"[ |]*E?  *((?:\w+\.)*\w*(?:Error|Exception|Exceeded|Slow\w*|Timeout|Hanging)\b.*)"
    found = re.findall(rf"^{raised}$", output, re.MULTILINE) or re.findall("^E  *(assert .*)$", output, re.MULTILINE)
    found = [line for line in found if not line.startswith(("ExceptionGroup", "Exception Group"))]
    return found[-1] if found else "?"


if __name__ == "__main__":
    sys.exit(main())
