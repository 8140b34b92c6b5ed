"""The Ray launcher keeps the contract of launchers. Its nodes are this machine, so nothing is left out."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from snakepit_trio.launchers import Ray
from snakepit_trio.testing import conformance

from .conftest import POOL, RayCluster, all_gone

pytestmark = pytest.mark.slow
_CLUSTER: list[RayCluster] = []


def on_the_cluster() -> Ray:
    return Ray(_CLUSTER[0].address, resources={"CPU": 0.5})


CHECKS = conformance.launcher(on_the_cluster, name=POOL)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_contract(cluster: RayCluster, check: Any) -> None:
    _CLUSTER[:] = [cluster]
    with trio.fail_after(120):
        await check.attempt()
    assert all_gone()
