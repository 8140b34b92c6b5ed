"""Links between the pages lead somewhere, to a heading that is there. `make links` tries those to other sites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.snippets import ROOT, pages

CODE = re.compile(r"^( *)```.*?^\1```|<!-- .*?-->|`[^`\n]*`", re.DOTALL | re.MULTILINE)
CHANGES = ROOT / "CHANGELOG.md"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: set[str] = set()
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(1 for each in found if each == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", each))
        found.add(f"{slug}-{number}" if number else slug)
    return found


@pytest.mark.parametrize("page", [*pages(), CHANGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = CODE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        if not path.startswith(("http:", "https:", "mailto:")):
            other = (page.parent / path).resolve() if path else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


def test_all_pages_are_reached_from_the_index() -> None:
    """Pages of the reference are reached by their own contents."""
    index = (ROOT / "docs" / "index.md").read_text()
    linked = set(re.findall(r"\]\((\w+\.md)", index))
    named = {f"{name}.md" for name in re.findall(r"^(\w+)$", index, re.MULTILINE)}
    there = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert linked <= named | {"index.md"}
    assert named - {"others.md"} <= there
