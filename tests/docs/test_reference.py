"""The reference has each public name once, and the docs build without a warning."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.snippets import ROOT

DOCS = ROOT / "docs"
sys.path.append(str(DOCS))
reference_names = importlib.import_module("reference_names")


def test_each_public_name_is_listed_once() -> None:
    pages = sorted((DOCS / "reference").glob("*.md"))
    listed = Counter(name for page in pages for name in reference_names.listed(page.read_text()))
    listed.update(reference_names.further())
    assert listed == Counter(reference_names.public())


def test_no_module_of_the_reference_is_private() -> None:
    assert not [name for name in reference_names.MODULES if "._" in name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_docs_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text() for page in (tmp_path / "html").rglob("*.html")}
    assert not [name for name, page in pages.items() if sys.executable in page]
    shown = Counter(name for page in pages.values() for name in re.findall(r'<dt [^>]*\bid="([\w.]+)"', page))
    assert {"snakepit_trio.PoolConfig.workers", "snakepit_trio.Pool.sessions"} <= set(shown), "attributes are missing"
    # A name that moved to another module keeps its first one in the anchor, so only its last part counts.
    last = Counter(name.rpartition(".")[2] for name in shown)
    assert {name.rpartition(".")[2] for name in reference_names.public()} - set(last) == {"session_helpers"}  # a module
    assert not [name for name, count in shown.items() if count > 1]
