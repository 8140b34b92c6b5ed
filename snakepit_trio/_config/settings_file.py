"""The adapter of pools that name none: from the environment, or from a pyproject.toml that nobody else can write."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.log import get_logger

SHOWCASE: Final = "bridge_py.adapters.showcase:Showcase"
ADAPTER_VARIABLE: Final = "SNAKEPIT_ADAPTER"
_NAME: Final = "pyproject.toml"

logger = get_logger("snakepit.config")


def default_adapter() -> str:
    """The adapter that `SNAKEPIT_ADAPTER` or `[tool.snakepit]` in the nearest pyproject.toml names, else the showcase.

    A pyproject.toml that another user could have written is ignored, with a warning in the log. Raises `UsageError` if
    the pyproject.toml cannot be read or names something that is not text.
    """
    if named := os.environ.get(ADAPTER_VARIABLE):
        return named
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / _NAME
        if path.is_file() and (content := _read(path)) is not None:
            return _adapter_in(path, content) or SHOWCASE
    return SHOWCASE


def _read(path: Path) -> bytes | None:
    """Read a file; None if somebody else could have written it."""
    try:
        # The file itself is judged through its descriptor: its name may stand for another one a moment later.
        with path.open("rb") as file:
            owners = {path: os.fstat(file.fileno())}
            owners |= {folder: folder.stat() for folder in (path.parent, path.resolve().parent)}
            for place, found in owners.items():
                if (why := _distrusts(found)) is not None:
                    _warn(path, f"{place} {why}")
                    return None
            return file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read for [tool.snakepit]: {error}") from error


def _distrusts(found: os.stat_result) -> str | None:
    """Say why a file or folder might have been written by another user; None if it cannot have been."""
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {found.st_uid}, which is neither yours nor root's"
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if found.st_mode & stat.S_IWGRP and not _is_private(found.st_gid):
        return f"can be written by the group {found.st_gid}"
    return None


def _is_private(group: int) -> bool:
    """Whether a group is the user's alone: it has the user's name and no other members."""
    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_gid == user.pw_gid and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


@functools.cache
def _warn(path: Path, why: str) -> None:
    logger.warning(
        "%s is ignored, because %s: take the right to write from others (chmod go-w), own it (chown), or set %s",
        path,
        why,
        ADAPTER_VARIABLE,
    )


def _adapter_in(path: Path, content: bytes) -> str | None:
    try:
        table: dict[str, Any] = tomllib.loads(content.decode()).get("tool", {}).get("snakepit", {})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read for [tool.snakepit]: {error}") from error
    adapter = table.get("adapter")
    if adapter is not None and not isinstance(adapter, str):
        raise UsageError(f"{path}: [tool.snakepit] adapter is {adapter!r}; write it as 'package.module:Class'")
    return adapter
