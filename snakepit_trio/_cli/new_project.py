"""The files that `snakepit new` writes. NAME_OF_PROJECT and PACKAGE_OF_PROJECT stand for the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PYPROJECT: Final = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "NAME_OF_PROJECT"
version = "0.1.0"
description = "Tools that run in worker processes."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["snakepit-trio", "trio"]

[project.optional-dependencies]
test = ["pytest>=8", "snakepit-trio[testing]"]

[project.scripts]
NAME_OF_PROJECT = "PACKAGE_OF_PROJECT.__main__:run"

[tool.hatch.build.targets.wheel]
packages = ["PACKAGE_OF_PROJECT"]

[tool.snakepit]
adapter = "PACKAGE_OF_PROJECT.tools:Tools"

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
"""

_TOOLS: Final = '''\
"""The tools. One instance of the class lives in each worker process."""

import re
from collections import Counter
from collections.abc import Iterator

from bridge_py import BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    """Counts words."""

    def setup(self) -> None:
        """Load here what takes long, such as a model: each worker does it once, when it starts."""
        self._word = re.compile(r"[\\w']+")

    @tool
    def count_words(self, text: str, shortest: int = 1) -> dict[str, int]:
        """Count how often each word is in a text.

        Args:
            text: The text.
            shortest: Letters that a word must have.

        """
        words = self._word.findall(text.lower())
        return dict(Counter(word for word in words if len(word) >= shortest))

    @tool
    def spell(self, text: str, context: SessionContext) -> Iterator[str]:
        """Spell the words of a text, a chunk for each word.

        Args:
            text: The text.

        """
        words = self._word.findall(text)
        for number, word in enumerate(words, 1):
            yield "-".join(word.upper())
            context.progress(number, len(words))
'''

_MAIN: Final = '''\
"""The program: counts and spells the words of its arguments, in worker processes."""

import sys

import snakepit_trio as snakepit
import trio

from .tools import Tools


async def main(texts: list[str]) -> None:
    """Print the words of each text."""
    async with snakepit.open_pool(Tools, workers=2) as pool:
        for text in texts:
            print(await pool.execute("count_words", {"text": text}, timeout=10))
            async with pool.stream("spell", {"text": text}) as words:
                async for word in words:
                    print(word)


def run() -> None:
    """Run the program."""
    trio.run(main, sys.argv[1:] or ["When a call is over, it is over."])


# Workers import the main module too: it must start nothing by itself.
if __name__ == "__main__":
    run()
'''

_TESTS: Final = '''\
"""Tests with workers in memory, which take milliseconds, and one with worker processes."""

import pytest
import snakepit_trio as snakepit
import trio
from snakepit_trio import testing

from PACKAGE_OF_PROJECT.tools import Tools


async def words(launcher: snakepit.Launcher | None = None) -> dict[str, int]:
    async with snakepit.open_pool(Tools, workers=1, launcher=launcher) as pool:
        found: dict[str, int] = await pool.execute("count_words", {"text": "The cat sees the dog", "shortest": 3})
        return found


def test_words() -> None:
    assert testing.run(lambda: words(testing.InMemory())) == {"the": 2, "cat": 1, "sees": 1, "dog": 1}


def test_words_in_a_process() -> None:
    assert trio.run(words)["the"] == 2


def test_spelling() -> None:
    async def main() -> list[str]:
        async with snakepit.open_pool(Tools, workers=1, launcher=testing.InMemory()) as pool:
            async with pool.stream("spell", {"text": "a cat"}) as chunks:
                return [chunk async for chunk in chunks]

    assert testing.run(main) == ["A", "C-A-T"]


def test_wrong_arguments() -> None:
    async def main() -> None:
        async with snakepit.open_pool(Tools, workers=1, launcher=testing.InMemory()) as pool:
            await pool.execute("count_words", {"text": 5})

    with pytest.raises(snakepit.InvalidArguments, match="text"):
        testing.run(main)


def test_a_worker_that_dies() -> None:
    launcher = testing.InMemory(testing.Faults(testing.Die(tool="count_words", when="after")))
    with pytest.raises(snakepit.WorkerCrashed):
        testing.run(lambda: words(launcher))
'''

_README: Final = """\
# NAME_OF_PROJECT

Tools that run in worker processes, by snakepit-trio.

```
python -m venv .venv
.venv/bin/pip install -e '.[test]'
.venv/bin/pytest
```

- `PACKAGE_OF_PROJECT/tools.py` has the tools: methods of a class that lives in each worker.
- `PACKAGE_OF_PROJECT/__main__.py` is the program: `.venv/bin/python -m PACKAGE_OF_PROJECT "the cat sees the dog"`.
- `tests/` has tests with workers in memory, and one with processes.

From the command line:

```
.venv/bin/snakepit tools
.venv/bin/snakepit run PACKAGE_OF_PROJECT.tools:Tools count_words text='the cat sees the dog'
.venv/bin/snakepit doctor
```
"""

_IGNORED: Final = "__pycache__/\n.venv/\n.pytest_cache/\n*.egg-info/\ndist/\n"


def files_of(name: str, package: str) -> Mapping[str, str]:
    """The files of a new project: their contents, by their paths in its folder."""
    files = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        ".gitignore": _IGNORED,
        f"{package}/__init__.py": '"""Tools that run in worker processes."""\n',
        f"{package}/tools.py": _TOOLS,
        f"{package}/__main__.py": _MAIN,
        "tests/test_tools.py": _TESTS,
    }
    return {
        path: text.replace("NAME_OF_PROJECT", name).replace("PACKAGE_OF_PROJECT", package)
        for path, text in files.items()
    }
