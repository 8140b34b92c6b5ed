"""What the tests of several peers need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.google_peer import stubs as google_stubs


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Google's classes of the contract."""
    folder = tmp_path_factory.mktemp("stubs")
    google_stubs.generate(folder)
    return folder
