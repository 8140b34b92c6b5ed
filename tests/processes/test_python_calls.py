"""Dynamic calls: what they give, models, frames and pipelines."""

from __future__ import annotations

import bz2
import functools
import gc
import gzip
import json
import lzma
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from bridge_py.adapters.python_calls import PythonCalls
from snakepit_trio import RemoteRef, Step, StoredObjectNotFound, UsageError, Verbatim
from snakepit_trio.testing import InMemory

TARGETS = "tests.helpers.python_targets"
OPTIONS: dict[str, Any] = {"allow": ["default", TARGETS], "roots": [tempfile.gettempdir()]}


@asynccontextmanager
async def _pool(workers: int = 1, options: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(PythonCalls, workers=workers, options=options or OPTIONS, **config) as pool:
        yield pool


class Mixed(PythonCalls):
    """Dynamic calls, and a tool beside."""

    def __init__(self, *, factor: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    @tool
    def times(self, n: int) -> int:
        """Multiply."""
        return n * self.factor


class Plain(BaseAdapter):
    """No dynamic calls."""

    @tool
    def one(self) -> int:
        """One."""
        return 1


# What calls give.


async def test_functions_classes_and_values() -> None:
    async with _pool(launcher=InMemory()) as pool:
        python = pool.python
        assert await python.call("math.sqrt", args=[16]) == 4
        assert await python.call("math.pi") == pytest.approx(3.14159, abs=1e-5)
        assert await python.call("statistics.mean", {"data": [1, 2, 3]}) == 2
        assert await python.call("len", args=["four"]) == 4
        array = await python.call("numpy.arange", args=[6.0])
        assert array.dtype == np.float64
        frame = await python.call("pandas.DataFrame", {"data": {"a": [1, 2]}})
        assert list(frame["a"]) == [1, 2]
        with pytest.raises(UsageError, match="'math.pi' is a float, which cannot be called"):
            await python.call("math.pi", args=[1])
        for kwargs, args in (([16], []), (None, "16"), (None, 16)):
            with pytest.raises(UsageError, match=r"'math.sqrt': give a dict of keyword arguments"):
                await python.call("math.sqrt", kwargs, args=args)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="math has no attribute 'nothing'"):
            await python.call("math.nothing")
        with pytest.raises(snakepit.ToolError, match="ValueError") as caught:
            await python.call("math.sqrt", args=[-1])
        assert "Traceback" in caught.value.remote_traceback
        with pytest.raises(UsageError, match="there is no package 'no_such_package' in the worker: pip install"):
            async with _pool(options={"trusted": True}, launcher=InMemory()) as trusted:
                await trusted.python.call("no_such_package.function")


async def test_objects_are_kept_named_and_used() -> None:
    async with _pool(launcher=InMemory()) as pool, pool.session() as session:
        python = pool.python
        thing = await python.call(f"{TARGETS}.Thing", args=[1000], session=session)
        assert thing == RemoteRef("thing_1", f"{TARGETS}.Thing", thing.repr, thing.size, session.id)
        assert 1000 < thing.size < 2000
        assert await python.call("stored.thing_1.call", session=session) == 1
        assert await python.call("stored.thing_1.calls", session=session) == 1
        assert await python.call("stored.thing_1.call.__call__", session=session) == 2
        await python.store("x", np.arange(4.0), session=session)
        kept = await python.call("numpy.add", args=["stored.x", 1], store_as="y", session=session)
        assert (kept.name, kept.type, kept.size) == ("y", "numpy.ndarray", 32)
        nested = {"a": ["stored.y.shape", ("stored.x", {"b": "stored.y"})], "c": Verbatim("stored.x"), "d": "stored. x"}
        found = await python.call(f"{TARGETS}.identity", args=[nested], session=session)
        assert found["a"][0] == [4]
        assert list(found["a"][1][1]["b"]) == [1, 2, 3, 4]
        assert (found["c"], found["d"]) == ("stored.x", "stored. x")
        assert await python.call("numpy.sum", args=[kept], session=session) == 10
        assert [ref.name for ref in await python.list_stored(session=session)] == ["thing_1", "x", "y"]
        assert list(await python.retrieve(kept, session=session)) == [1, 2, 3, 4]
        with pytest.raises(snakepit.EncodeError, match="Thing cannot be sent"):
            await python.retrieve(thing, session=session)
        await python.delete_stored("x", session=session)
        with pytest.raises(StoredObjectNotFound, match="'x'; there are: thing_1, y"):
            await python.delete_stored("x", session=session)
        with pytest.raises(StoredObjectNotFound, match="'x'; there are: thing_1, y"):
            await python.call("stored.x.sum", session=session)


async def test_what_is_stored_may_be_changed() -> None:
    async with _pool() as pool, pool.session() as session:
        await pool.python.store("x", np.zeros(200_000), session=session)
        await pool.python.call("stored.x.fill", args=[3], session=session)
        await pool.python.call("stored.x.__setitem__", args=[0, 5], session=session)
        assert await pool.python.call("stored.x.sum", session=session) == 600_002


async def test_what_takes_a_session_says_so() -> None:
    async with _pool(launcher=InMemory()) as pool, pool.session() as session, pool.session() as other:
        python = pool.python
        ref = await python.store("x", 1, session=session)
        attempts = [
            python.call(f"{TARGETS}.Thing"),
            python.call("math.pi", store_as="x"),
            python.call("stored.x"),
            python.call("len", args=["stored.x"]),
            python.call("len", args=[ref]),
            python.call("len", args=[ref], session=other),
            python.store("x", 1),
            python.list_stored(),
        ]
        for attempt in attempts:
            with pytest.raises(UsageError, match="give session="):
                await attempt
        with pytest.raises(UsageError, match="give it a name by store_as="):
            await python.call("math.pi", durable=True, session=session)
        with pytest.raises(snakepit.SessionNotFound, match="'nobody'"):
            await python.store("x", 1, session="nobody")


async def test_pools_without_such_an_adapter() -> None:
    async with snakepit.open_pool(Plain, workers=1, launcher=InMemory()) as pool:
        with pytest.raises(
            UsageError, match=r"open it with the adapter bridge_py\.adapters\.python_calls\.PythonCalls"
        ):
            await pool.python.info()


async def test_an_adapter_with_tools_beside_and_its_options() -> None:
    options = {"factor": 7, "trusted": True}
    async with snakepit.open_pool(Mixed, workers=1, options=options) as pool:
        assert await pool.execute("times", {"n": 6}) == 42
        assert (await pool.python.info())["trusted"] is True
        assert await pool.python.call("os.environ.get", args=["SNAKEPIT_ADAPTER_OPTIONS"]) is None
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(Mixed, workers=1, options={"faktor": 7}):
            pass
    assert "adapter Mixed has no option 'faktor'; there are: factor" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    ("adapter", "options", "message"),
    [
        (snakepit.GrpcBridge(script="x.py"), {"a": 1}, "adapters that are Python classes"),
        (PythonCalls, {"a": object()}, "options: 'a' is no plain JSON value"),
        (PythonCalls, {"a": float("nan")}, "options: 'a' is no plain JSON value"),
        (PythonCalls, {1: 2}, "by the names"),
        (PythonCalls, ["a"], "by the names"),
    ],
)
def test_options_that_cannot_be(adapter: Any, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        snakepit.PoolConfig(adapter=adapter, options=options)


# Pipelines.


async def test_a_pipeline_is_one_call() -> None:
    async with _pool(launcher=InMemory()) as pool, pool.session() as session:
        python = pool.python
        before = pool.get_stats().calls
        steps: list[Any] = [
            ("numpy.arange", {}, {"args": [4], "store_as": "x"}),
            Step("stored.x.sum"),
            Step("numpy.multiply", args=["stored.x", 2], store_as="y"),
            ("stored.y.max",),
        ]
        for where in (session, None):
            kept, total, _, highest = await python.pipeline(steps, session=where)
            assert (kept.name, total, highest) == ("x", 6, 6)
        assert pool.get_stats().calls == before + 2
        assert [ref.name for ref in await python.list_stored(session=session)] == ["x", "y"]
        with pytest.raises(UsageError, match="there is no option 'as'"):
            await python.pipeline([("math.pi", {}, {"as": "x"})])
        with pytest.raises(UsageError, match="is no step"):
            await python.pipeline(["math.pi"])  # type: ignore[list-item]


async def test_a_pipeline_that_fails_has_stored_nothing() -> None:
    async with _pool(launcher=InMemory()) as pool, pool.session() as session:
        python = pool.python
        await python.store("x", "before", session=session)
        steps = [
            Step("math.pi", store_as="x"),
            Step(f"{TARGETS}.Thing", store_as="new"),
            Step(f"{TARGETS}.fail", {"message": "why"}),
        ]
        with pytest.raises(
            snakepit.ToolError, match=r"step 3 of 3, 'tests\.helpers\.python_targets\.fail': 'why'"
        ) as caught:
            await python.pipeline(steps, session=session)
        assert caught.value.type == "KeyError"
        assert "in fail" in caught.value.remote_traceback
        with pytest.raises(snakepit.NotAllowed, match=r"step 2 of 2, 'os\.system'"):
            await python.pipeline([Step("math.pi", store_as="x"), Step("os.system")], session=session)
        assert [ref.name for ref in await python.list_stored(session=session)] == ["x"]
        assert await python.retrieve("x", session=session) == "before"


# Models and frames.


async def test_models_predict_as_in_this_process() -> None:
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.model_selection import train_test_split

    x, y = load_iris(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.3, random_state=7)
    models = {
        "random_forest": (RandomForestClassifier, {"n_estimators": 20, "random_state": 3}),
        "logistic_regression": (LogisticRegression, {"max_iter": 500}),
        "linear_regression": (LinearRegression, {}),
    }
    async with _pool(options={"allow": ["default"]}) as pool, pool.session() as session:
        python = pool.python
        data = await python.call("sklearn.datasets.load_iris", store_as="iris", session=session)
        split = {"test_size": 0.3, "random_state": 7}
        names = ["stored.iris.data", "stored.iris.target"]
        remote = await python.call("sklearn.model_selection.train_test_split", split, args=names, session=session)
        assert data.type == "sklearn.utils._bunch.Bunch"
        for mine, theirs in zip(parts, remote, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        await python.store("X", remote[0], session=session)
        for kind, (model, params) in models.items():
            here = model(**params).fit(parts[0], parts[2])
            await python.create_model(kind, params, store_as=kind, session=session)
            trained = await python.train_model(kind, {"X": "stored.X", "y": parts[2]}, session=session)
            assert trained.name == kind
            predicted = await python.predict(kind, {"X": parts[1]}, session=session)
            assert predicted.tobytes() == here.predict(parts[1]).tobytes()
            if kind != "linear_regression":
                shares = await python.predict(trained, remote[1], proba=True, session=session)
                assert shares.tobytes() == here.predict_proba(parts[1]).tobytes()
        kept = await python.predict("random_forest", parts[1], store_as="p", session=session)
        assert kept.name == "p"
        with pytest.raises(UsageError, match=r"no kind of model 'forest'; there are: .*random_forest, "):
            await python.create_model("forest", store_as="f", session=session)
        with pytest.raises(UsageError, match="the data of a training"):
            await python.train_model("random_forest", {"y": 1}, session=session)


async def test_frames_from_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    files = {kind: tmp_path / f"frame.{kind}" for kind in ("csv", "json", "parquet", "db")}
    frame.to_csv(files["csv"], index=False)
    frame.to_json(files["json"])
    frame.to_parquet(files["parquet"])
    connection = sqlite3.connect(files["db"])
    frame.to_sql("t", connection, index=False)
    connection.close()
    async with _pool(launcher=InMemory()) as pool, pool.session() as session:
        python = pool.python
        for kind, name in [("csv", "filepath"), ("json", "path"), ("parquet", "path")]:
            loaded = await python.load_dataframe(kind, {name: str(files[kind])})
            pd.testing.assert_frame_equal(loaded, frame, check_dtype=False)
        con = f"sqlite:///{files['db']}"
        query = {"sql": "SELECT * FROM t WHERE a > ?", "con": con, "params": [1]}
        ref = await python.load_dataframe("sql", query, store_as="rows", session=session)
        assert ref.type == "pandas.DataFrame"
        assert await python.call("stored.rows.shape", session=session) == [1, 2]
        with pytest.raises(snakepit.ToolError, match="readonly database"):
            await python.load_dataframe("sql", {"sql": "DELETE FROM t", "con": con})
        with pytest.raises(snakepit.ToolError, match="not authorized"):
            await python.load_dataframe("sql", {"sql": f"ATTACH '{tmp_path}/new' AS n", "con": con})
        assert not (tmp_path / "new").exists()
        with pytest.raises(UsageError, match="no file .*nowhere"):
            await python.load_dataframe("sql", {"sql": "SELECT 1", "con": f"sqlite:///{tmp_path}/nowhere"})
        with pytest.raises(snakepit.NotAllowed, match="read_sql"):
            await python.load_dataframe("sql", {"sql": "SELECT 1", "con": "postgresql://x"})
        with pytest.raises(UsageError, match="no source 'xml' of frames; there are: csv, json"):
            await python.load_dataframe("xml", {})
    gc.collect()  # what failed still had the file open


async def test_looking_at_things() -> None:
    async with _pool(launcher=InMemory()) as pool, pool.session() as session:
        python = pool.python
        function = await python.inspect("statistics.mean")
        assert (function["callable"], function["signature"]) == (True, "(data)")
        assert "arithmetic mean" in function["doc"]
        await python.store("x", np.zeros((2, 3), np.float32), session=session)
        array = await python.inspect("stored.x", session=session)
        assert (array["type"], array["shape"], array["dtype"]) == ("numpy.ndarray", [2, 3], "float32")
        assert "sum" in array["members"]
        assert not any(name.startswith("_") for name in array["members"])
        info = await python.info(session=session)
        assert info["python"] == ".".join(map(str, sys.version_info[:3]))
        assert info["libraries"]["numpy"] == np.__version__
        assert (info["stored"], info["stored_bytes"], info["trusted"]) == (1, 24, False)


async def test_configure() -> None:
    async with _pool() as pool:
        python = pool.python
        await python.configure("numpy", {"precision": 3, "seed": 5})
        assert await python.call("repr", args=[[1]]) == "[1]"
        assert (await python.call("numpy.get_printoptions"))["precision"] == 3
        await python.configure("pandas", {"display.max_rows": 7})
        assert await python.call("pandas.get_option", args=["display.max_rows"]) == 7
        await python.configure("sklearn", {"assume_finite": True})
        assert (await python.call("sklearn.get_config"))["assume_finite"] is True
        with pytest.raises(UsageError, match=r"numpy has no setting 'colour' here; there are: precision"):
            await python.configure("numpy", {"threshold": 9, "colour": 1})
        assert (await python.call("numpy.get_printoptions"))["threshold"] == 1000
        with pytest.raises(UsageError, match="pandas has no setting 'plotting.backend'"):
            await python.configure("pandas", {"plotting.backend": "antigravity"})
    async with _pool(options={"trusted": True}, launcher=InMemory()) as pool:
        with pytest.raises(UsageError, match="no framework 'abacus' to be configured; there are: numpy, pandas"):
            await pool.python.configure("abacus", {})


def test_a_worker_starts_light(untraced_workers: None) -> None:
    code = (
        "import json, sys, bridge_py.adapters.python_calls as calls; calls.PythonCalls();"
        "heavy = ('numpy', 'pandas', 'sklearn', 'polars', 'trio', 'sqlite3');"
        "print(json.dumps([module for module in heavy if module in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


async def test_csv_files_as_people_have_them(tmp_path: Path) -> None:
    text = 'näme,"long\nname"\r\nä,"1\n2"\r\n€,3\r\n'
    frame = pd.DataFrame({"näme": ["ä", "€"], "long\nname": ["1\n2", "3"]})
    path = str(tmp_path / "a.csv")
    async with _pool(launcher=InMemory()) as pool:
        load = functools.partial(pool.python.load_dataframe, "csv")
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            for compress in (bytes, gzip.compress, bz2.compress, lzma.compress):
                Path(path).write_bytes(compress(text.encode(encoding)))
                found = await load({"path": path})
                pd.testing.assert_frame_equal(found, frame, check_dtype=False)
        Path(path).write_bytes(text.encode("cp1252"))
        with pytest.raises(UsageError, match="3 characters are no utf-8: name its encoding"):
            await load({"path": path})
        found = await load({"path": path, "encoding": "cp1252"})
        pd.testing.assert_frame_equal(found, frame, check_dtype=False)
        Path(path).write_text("n,t\n" + "".join(f'{n},"bad\n' if n == 1000 else f"{n},x\n" for n in range(200_000)))
        with pytest.raises(UsageError, match=r"1 lines have a quote that is not closed, the first is b'1000,\"bad"):
            await load({"path": path})
        assert len(await load({"path": path, "quoting": 3})) == 200_000
        Path(path).write_bytes(b"PAR1" + bytes(100))
        with pytest.raises(UsageError, match="is a Parquet file"):
            await load({"path": path})
        with pytest.raises(snakepit.ToolError, match="FileNotFoundError"):
            await load({"path": f"{path}.nowhere"})
