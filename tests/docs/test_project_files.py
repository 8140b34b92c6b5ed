"""The files that a stranger looks for: how to contribute, to cite and to release; each says what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FRAGMENTS: Final = sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")
KINDS: Final = [kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]]
PYTHONS: Final = [each for each in PROJECT["project"]["classifiers"] if each.startswith("Programming Language")]


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_well_formed(path: Path) -> None:
    assert re.fullmatch(rf"(?:\d+|\+[a-z0-9-]+)\.(?:{'|'.join(KINDS)})\.md", path.name), "see changelog.d/README.md"
    text = path.read_text()
    assert text.strip().endswith("."), "whole sentences"
    assert len(text.strip().splitlines()) <= 4
    assert all(len(line) <= 132 for line in text.splitlines())
    assert not text.lstrip().startswith(("-", "*", "#")), "the bullet is added"


def test_the_kinds_are_told() -> None:
    assert re.findall(r"^- `(\w+)`", (ROOT / "changelog.d" / "README.md").read_text(), re.MULTILINE) == KINDS


def test_the_next_section_can_be_written(tmp_path: Path) -> None:
    pytest.importorskip("towncrier", reason="towncrier is not installed here: make .venv/.dev")
    marker = PROJECT["tool"]["towncrier"]["start_string"]
    assert (ROOT / "CHANGELOG.md").read_text().count(marker) == 1
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version=next", "--dir", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "## next (" in done.stdout
    for path in FRAGMENTS:
        assert path.read_text().split()[0] in done.stdout


def test_ci_runs_the_command_on_each_python() -> None:
    yaml = pytest.importorskip("yaml", reason="pre-commit is not installed here: make .venv/.dev")
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]
    assert [f"Programming Language :: Python :: {each}" for each in job["strategy"]["matrix"]["python"]] == PYTHONS
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_the_hooks_are_commands_of_make_check() -> None:
    yaml = pytest.importorskip("yaml", reason="pre-commit is not installed here: make .venv/.dev")
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"  # nothing is fetched
    makefile = (ROOT / "Makefile").read_text()
    check = makefile[makefile.index("\ncheck:") :].partition("\n\n")[0].replace("$(BIN)", ".venv/bin")
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"] == "make check" or hook["entry"] in check


def test_the_citation_has_what_its_format_asks_for() -> None:
    yaml = pytest.importorskip("yaml", reason="pre-commit is not installed here: make .venv/.dev")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["title"], cited["license"]) == (PROJECT["project"]["name"], PROJECT["project"]["license"])
    assert cited["abstract"] == PROJECT["project"]["description"]


def test_contributing_names_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z]+)\b", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
