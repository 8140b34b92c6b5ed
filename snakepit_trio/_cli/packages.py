"""What `snakepit doctor` checks of the packages that are installed: the dependencies, and the extras.

It imports the dependencies, because a package may be there and broken. It needs none of them itself.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from .checks import Check, State

_PACKAGE: Final = "snakepit-trio"
#: Where the module has another name than its package.
_MODULES: Final = {"snakepit-trio-worker": "bridge_py"}
_NOT_FOR_USERS: Final = ("bench", "dev")
_REQUIREMENT: Final = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")


@dataclass(frozen=True)
class Requirement:
    """A package that is needed. `extra` is the extra that needs it, or empty. `is_optional`: not on every system."""

    name: str
    bounds: tuple[str, ...]
    extra: str = ""
    is_optional: bool = False


def check_packages() -> Iterator[Check]:
    """Check the versions of the dependencies, one line each, and tell in two lines which extras are there."""
    try:
        needed = [read_requirement(each) for each in metadata.requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Check(
            "packages", "warn", f"{_PACKAGE} is not installed: it runs from its sources", f"pip install {_PACKAGE}"
        )
        return
    yield Check(_PACKAGE, "ok", metadata.version(_PACKAGE))
    yield from (_check(each) for each in needed if not each.extra)
    yield from _extras([each for each in needed if each.extra and each.extra not in _NOT_FOR_USERS])


def read_requirement(text: str) -> Requirement:
    """Read a requirement as a package's metadata has it. Of markers, only the extra is read."""
    found = _REQUIREMENT.match(text)
    assert found is not None, text
    name, bounds, marker = found[1], found[2], found[3] or ""
    extra = _EXTRA.search(marker)
    rest = _EXTRA.sub("", marker).strip().removesuffix("and").strip()
    return Requirement(
        name, tuple(filter(None, map(str.strip, bounds.split(",")))), extra[1] if extra else "", bool(rest)
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check(needed: Requirement) -> Check:
    remedy = f"{sys.executable} -m pip install '{needed.name}{','.join(needed.bounds)}'"
    version = _version(needed.name)
    if version is None:
        return Check(needed.name, "warn" if needed.is_optional else "fail", "is not installed", remedy)
    if wrong := [bound for bound in needed.bounds if not fulfils(version, bound)]:
        return Check(needed.name, "fail", f"{version}, but it must be {' and '.join(wrong)}", remedy)
    if not needed.extra and (problem := _problem_of_import(_MODULES.get(needed.name, needed.name.replace("-", "_")))):
        again = remedy.replace("install", "install --force-reinstall", 1)
        state: State = "warn" if needed.is_optional else "fail"
        return Check(needed.name, state, f"{version} is installed, but cannot be imported: {problem}", again)
    return Check(needed.name, "ok", version)


def _problem_of_import(module: str) -> str:
    """Why a module cannot be imported; empty if it can. Pools need the module anyway."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fulfils(version: str, bound: str) -> bool:
    """Whether a version keeps to a bound such as `>=1.2`. Bounds and versions that are not read here count as kept."""
    found = re.fullmatch(r"(>=|<|==)\s*(\d+(?:\.\d+)*)", bound)
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if found is None or numbers is None:
        return True
    one, other = _numbers(numbers[0]), _numbers(found[2])
    length = max(len(one), len(other))
    one, other = (each + (0,) * (length - len(each)) for each in (one, other))
    return {">=": one >= other, "<": one < other, "==": one == other}[found[1]]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _extras(needed: Sequence[Requirement]) -> Iterator[Check]:
    by_extra: defaultdict[str, list[Requirement]] = defaultdict(list)
    for each in needed:
        by_extra[each.extra].append(each)
    there, absent = [], []
    for extra, parts in sorted(by_extra.items()):
        versions = {each.name: _version(each.name) for each in parts}
        if None in versions.values():
            lacking = ", ".join(name for name, version in versions.items() if version is None)
            absent.append(f"{extra} (lacks {lacking})")
        else:
            there.append(f"{extra} ({', '.join(f'{name} {version}' for name, version in versions.items())})")
            yield from (found for each in parts if (found := _check(each)).state == "fail")
    yield Check("extras", "ok", "; ".join(there) or "none")
    if absent:
        yield Check("other extras", "ok", f"{'; '.join(absent)}: pip install '{_PACKAGE}[NAME]' if you need one")
