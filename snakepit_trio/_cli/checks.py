"""A check of `snakepit doctor`, and how checks are run. The standard library is enough, as packages may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warn", "fail"]
#: What a check finds: its state, a text, and what to do.
Finding = tuple[State, str] | tuple[State, str, str]
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Check:
    """One line of the report.

    `remedy` is empty if there is nothing to do. `seconds` is how long a step took, or None. `stderr` has the last lines
    of a worker that has failed.
    """

    name: str
    state: State
    text: str
    remedy: str = ""
    seconds: float | None = None
    stderr: tuple[str, ...] = ()


def run_checks(checks: Mapping[str, Callable[[], Finding]]) -> Iterator[Check]:
    """Run checks, one line each. A check that raises has failed, and keeps no other from being made."""
    for name, look in checks.items():
        try:
            finding = look()
            yield Check(name, finding[0], finding[1], finding[2] if len(finding) == 3 else "")
        except ImportError as error:
            remedy = "correct the package that is missing or broken, which is told below"
            yield Check(name, "warn", f"cannot be checked: {error}", remedy)
        except Exception as error:
            yield Check(name, "fail", f"cannot be checked: {type(error).__name__}: {error}", "report this as a fault")
