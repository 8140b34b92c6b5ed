"""The report of `snakepit doctor`: all checks, one after the other. The standard library is enough for it."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Final

from .checks import Check, run_checks
from .entry_checks import ENTRY_CHECKS
from .here import import_from_here
from .limit_checks import LIMIT_CHECKS
from .machine_checks import MACHINE_CHECKS
from .packages import check_packages

_COLORS: Final = {"ok": "32", "warn": "33", "fail": "31"}


def examine(adapter: str | None, *, as_json: bool) -> int:
    """Make all checks, print each one or the whole as JSON, and return the exit code: 1 if a check has failed."""
    import_from_here()
    # What pools and workers tell is in the report, if it is of any use.
    logging.getLogger("snakepit").addHandler(logging.NullHandler())
    found: list[Check] = []

    def tell(check: Check) -> None:
        found.append(check)
        if not as_json:
            _print(check)

    for check in _all_checks():
        tell(check)
    _try_worker(adapter, tell)
    if as_json:
        print(json.dumps([dataclasses.asdict(check) for check in found], indent=2))
    sys.stdout.flush()  # here, so that an error of writing is told
    return int(any(check.state == "fail" for check in found))


def _all_checks() -> Iterator[Check]:
    yield from run_checks(MACHINE_CHECKS)
    yield from run_checks(LIMIT_CHECKS)
    yield from run_checks(ENTRY_CHECKS)
    yield from check_packages()


def _try_worker(adapter: str | None, tell: Callable[[Check], None]) -> None:
    try:
        import trio

        from .trial import try_worker
    except ImportError as error:
        tell(Check("worker", "fail", f"cannot be started: {error}", "correct what has failed above"))
        return
    trio.run(try_worker, adapter, tell)


def _print(check: Check) -> None:
    state = f"{check.state:<4}"
    if sys.stdout.isatty():
        state = f"\x1b[{_COLORS[check.state]}m{state}\x1b[0m"
    took = "" if check.seconds is None else f" ({1000 * check.seconds:.0f} ms)"
    _say(f"{state}  {check.name}: {_readable(check.text)}{took}")
    if check.remedy:
        _say(f"      -> {_readable(check.remedy)}")
    for line in check.stderr:
        _say(f"      stderr: {_readable(line)}")


def _say(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _readable(text: str) -> str:
    from bridge_py.wire.readable import readable  # needs no other module

    return readable(text)
