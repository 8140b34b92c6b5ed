"""An adapter's module may import the host too, as scripts do."""

from __future__ import annotations

import pytest

import snakepit_trio as snakepit


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_adapters_module_may_import_the_host(concurrency: int) -> None:
    async with snakepit.open_pool(
        "tests.helpers.importing_tools:ImportingTools", workers=1, concurrency=concurrency
    ) as pool:
        version = snakepit.__version__
        assert await pool.execute("sync", timeout=10) == version
        assert await pool.execute("in_loop", timeout=10) == f"{version} asyncio"
        assert await pool.execute("in_process", timeout=10) == version
        for name in ("count", "count_async"):
            async with pool.stream(name, timeout=10) as chunks:
                assert [chunk async for chunk in chunks] == [0, 1, 2]
        for name in ("for_ever", "for_ever_sync"):
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute(name, timeout=0.1)
        assert await pool.execute("sync") == version
        assert pool.get_stats().restarts == 0
