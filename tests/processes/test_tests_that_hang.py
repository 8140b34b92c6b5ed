"""A test that takes too long fails; those after it in its process run, and trio and pools work in them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_test_that_hangs_takes_no_other_tests_result_with_it(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(
        textwrap.dedent("""
            import threading
            import pytest, trio
            import snakepit_trio as snakepit

            @pytest.mark.timeout(5)
            async def test_that_hangs_in_a_shield_with_an_open_pool():
                async with snakepit.open_pool("tests.helpers.tools:Tools", workers=1):
                    with trio.CancelScope(shield=True):
                        await trio.sleep_forever()

            @pytest.mark.timeout(1)
            def test_that_hangs_outside_of_trio():
                threading.Event().wait()

            async def test_that_comes_after_it():
                async with snakepit.open_pool("tests.helpers.tools:Tools", workers=1) as pool:
                    assert await pool.execute("add", {"a": 1}) == 2
        """)
    )
    plugins = ["-p", "tests.helpers.timeouts", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-o", "trio_mode=true", *plugins, str(tmp_path)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout.rstrip().splitlines()[-1].startswith("2 failed, 1 passed"), done.stdout + done.stderr
    assert "the test has not ended after 5 s; its tasks wait:" in done.stdout
    assert "test_that_hangs_in_a_shield_with_an_open_pool" in done.stdout
    assert "TooLong: the test has not ended after 1 s" in done.stdout
