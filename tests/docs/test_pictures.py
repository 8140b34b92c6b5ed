"""The pictures of the docs are what the code draws, and no page shows a picture that nothing makes."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from docs.drawing import plot
from docs.drawing.__main__ import DRAWN, FOLDER
from snakepit_trio._workers.life import TABLE
from tests.helpers.snippets import pages

LARGEST = 200 * 1024  # bytes


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_what_the_code_draws(name: str) -> None:
    assert DRAWN[name]() == (FOLDER / name).read_text(), "make pictures ARGS='life benchmarks'"


def test_the_life_of_a_worker_has_all_moves() -> None:
    drawn = DRAWN["life.svg"]()
    ET.fromstring(drawn)
    assert drawn.count('class="line"') == sum(len(moves) for moves in TABLE.values())


def test_the_plot_has_the_figures_of_the_page() -> None:
    figures = plot.table(plot.PAGE.read_text())
    assert {"snakepit-trio", "trio-parallel", "ProcessPoolExecutor"} <= set(figures["p50, ms"])
    assert set(figures["chunks/s"]) == {"snakepit-trio", "grpc.aio", "Ray actors"}
    assert f"{figures['chunks/s']['grpc.aio']:,g}" in DRAWN["benchmarks.svg"]()


def test_all_pictures_are_shown_and_small() -> None:
    shown = {name for page in pages() for name in re.findall(r"pictures/([\w.]+)\)", page.read_text())}
    assert shown == {path.name for path in FOLDER.iterdir()} == {*DRAWN, "dashboard.png"}
    assert max(path.stat().st_size for path in FOLDER.iterdir()) < LARGEST
