"""The allow-list of dynamic calls without a worker: patterns, names, and what a refusal says."""

from __future__ import annotations

import pytest

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from bridge_py.dynamic.allow_list import AllowList, parts_of
from bridge_py.wire.errors import NotAllowed, UsageError
from snakepit_trio.testing import InMemory


@pytest.mark.parametrize(
    "name", ["__class__", "_x", "a.b", "", "x" * 101, "na\u00efve", "1x", "a b", "../x", "stored.x"]
)
async def test_names_of_stored_objects_are_plain(name: str) -> None:
    async with snakepit.open_pool(PythonCalls, workers=1, launcher=InMemory()) as pool, pool.session() as session:
        for attempt in (
            pool.python.store(name, 1, session=session),
            pool.python.call("math.pi", store_as=name, session=session),
            pool.python.pipeline([("math.pi", {}, {"store_as": name})], session=session),
        ):
            with pytest.raises(UsageError, match="cannot be the name of a stored object"):
                await attempt
        assert await pool.python.list_stored(session=session) == []


def test_patterns() -> None:
    allow_list = AllowList(["numpy", "my_app.tools.*", "default", "scipy.io"])
    walked = ["numpy", "my_app.tools", "my_app.tools.deep", "scipy.io", "sklearn.svm"]
    assert all(allow_list.may_walk(module) for module in walked)
    assert not any(
        allow_list.may_walk(module) for module in ["os", "my_app", "my_app.toolsets", "scipy.io.wavfile", ""]
    )
    wide = AllowList(["numpy.*", "pandas.*"])
    assert wide.may_walk("numpy.linalg")
    assert not any(wide.may_walk(module) for module in ["numpy.ctypeslib", "numpy.lib.format", "pandas.io.common"])
    with pytest.raises(UsageError, match="give a list of module names"):
        AllowList("numpy")
    with pytest.raises(UsageError, match=r"'numpy\.\*\.x' is no pattern"):
        AllowList(["numpy.*.x"])
    assert parts_of("stored.x") == ["stored", "x"]


async def test_a_refusal_says_what_and_what_to_do() -> None:
    options = {"allow": ["math", "tests.helpers.python_targets"]}
    async with snakepit.open_pool(PythonCalls, workers=1, options=options, launcher=InMemory()) as pool:
        with pytest.raises(NotAllowed, match=r"'numpy\.sum'.*module 'numpy'.*\['default', 'numpy'\].*'trusted': True"):
            await pool.python.call("numpy.sum", args=[[1]])
        assert await pool.python.call("tests.helpers.python_targets.double", args=[4]) == 8
        with pytest.raises(NotAllowed, match="'system' comes from posix.system"):
            await pool.python.call("tests.helpers.python_targets.system", args=["true"])
        with pytest.raises(UsageError, match="has no attribute 'nothing'"):
            await pool.python.call("tests.helpers.python_targets.nothing")
        assert (await pool.python.info())["allow"] == ["math", "tests.helpers.python_targets"]
