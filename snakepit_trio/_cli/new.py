"""`snakepit new`: makes a small project."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*")
_LONGEST: Final = 64  # characters
_TAKEN: Final = frozenset(("tests", "test", "bridge_py", "snakepit_trio", "trio", "pytest"))


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Make a small project in the new folder NAME.

    It has a pyproject.toml, a package with an adapter of two tools, a program, tests and a README. Its distribution
    has the last part of NAME as its name. Nothing is overwritten. The exit code is 0, 2 for an invalid name or a folder
    that exists, and else 1.

    \b
    Examples:
      snakepit new word-counter
      snakepit new ~/src/word-counter
    """  # noqa: D301 - \b is click's mark of lines to keep
    from .new_project import files_of

    folder = Path(name)
    package = package_of(folder.name)
    try:
        write_project(folder, files_of(folder.name, package))
    except FileExistsError:
        raise click.UsageError(f"{folder} is there already, and is left as it is: give another name") from None
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be made: {error.strerror or error}") from error
    click.echo(f"{folder} is made; its README.md says how to go on: a virtual environment, its tests, its program")


def package_of(name: str) -> str:
    """The name of the package of a project. Raises `click.UsageError` for a name that no project can have."""
    package = name.lower().replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise click.UsageError(
            f"{name!r:.100} cannot name a project: use letters, digits and single hyphens, such as word-counter"
        )
    if package in _TAKEN or package in sys.stdlib_module_names or keyword.iskeyword(package):
        raise click.UsageError(f"Python, or a package that the project needs, has the name {package!r}: give another")
    return package


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """Make the folder, with these files.

    Raises `FileExistsError` if there is something of this name, which stays, and `OSError`, and leaves nothing then.
    """
    folder.mkdir()
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
