"""The program that type checkers see in `make check` runs, too."""

from __future__ import annotations

from tests.typed import calls


async def test_what_is_typed_runs() -> None:
    await calls.main()
