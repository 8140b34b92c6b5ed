"""What `snakepit doctor` checks of how programs start here: variables, modules that hide others, and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

from snakepit_command import hidden_by_path, hides

from .checks import Finding, State

# What each variable does to workers, which inherit it.
_HARM: Final = {
    "PYTHONHOME": "Python looks for its own modules there, also Python of another version",
    "PYTHONDONTWRITEBYTECODE": "workers compile modules anew at each start, unless pip has compiled them",
    "PYTHONDEVMODE": "workers run slowly, in Python's development mode",
    "PYTHONMALLOC": "workers allocate memory in another way, such as slowly",
    "PYTHONTRACEMALLOC": "workers run slowly, and need more memory",
    "PYTHONASYNCIODEBUG": "the loop of asyncio runs slowly",
    "PYTHONINSPECT": "Python does not end when its program has",
    "PYTHONWARNINGS": "warnings may be errors, also in packages",
    "PYTHONOPTIMIZE": "tools have no descriptions (2), and assertions do not hold",
    "LD_PRELOAD": "each program, workers too, runs a library",
}
# Why each of these signals must come: their defaults, and those of Python, do the right thing.
_NEEDED: Final[dict[signal.Signals, tuple[State, str]]] = {
    signal.SIGCHLD: ("fail", "exit codes of the programs that the application starts are lost"),
    signal.SIGTERM: ("fail", "pools do not end in order when they are asked to; they have to be killed"),
    signal.SIGINT: ("warn", "Ctrl-C ends no program"),
}


def _variables() -> Finding:
    found = [name for name in _HARM if _is_set(name)]
    if not found:
        return "ok", "none of those that harm workers is set"
    text = "; ".join(f"{name}={os.environ[name]}: {_HARM[name]}" for name in found)
    return "warn", text, f"unset {' '.join(found)}, unless you mean it"


def _is_set(name: str) -> bool:
    value = os.environ.get(name, "")
    harmless = {"PYTHONOPTIMIZE": ("0",), "PYTHONWARNINGS": ("default", "ignore", "always")}
    return bool(value) and value not in harmless.get(name, ())


def _standard_library() -> Finding:
    by_path = list(hidden_by_path())
    # Workers have the working directory at the end of their path. Programs that start in it have it in front.
    found = [*by_path, *_hiding_here()]
    if not found:
        return "ok", "nothing on PYTHONPATH or in this folder has the name of one of its modules"
    needed = [path for name, path in found if name in sys.modules]
    shown = ", ".join(needed or [path for _, path in found])
    who = "all programs get" if by_path else "programs that start here, by python -m or as scripts, get"
    text = f"{shown}: {who} these in place of modules of the standard library"
    where = ", or take their folder from PYTHONPATH" if by_path else ""
    if needed:
        return "fail", f"{text}, which pools need", f"rename them{where}"
    return "warn", text, f"rename them, if something needs the others{where}"


def _hiding_here() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):  # it has been deleted, or nobody may look into it
        yield from ((name, os.path.relpath(path)) for name, path in hides(os.getcwd()))


def _signals() -> Finding:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    found: list[tuple[State, str]] = []
    for number, (state, harm) in _NEEDED.items():
        if number in blocked:
            found.append((state, f"{number.name} is blocked: {harm}"))
        elif signal.getsignal(number) is signal.SIG_IGN:
            found.append((state, f"{number.name} is ignored: {harm}"))
    if not found:
        return "ok", f"{', '.join(number.name for number in _NEEDED)} are neither ignored nor blocked"
    worst: State = "fail" if any(state == "fail" for state, _ in found) else "warn"
    names = ", ".join(sorted(text.partition(" ")[0] for _, text in found))
    remedy = f"it is inherited: correct the program or service that starts this one (env --default-signal), for {names}"
    return worst, "; ".join(text for _, text in found), remedy


ENTRY_CHECKS: Final[dict[str, Callable[[], Finding]]] = {
    "variables": _variables,
    "standard library": _standard_library,
    "signals": _signals,
}
