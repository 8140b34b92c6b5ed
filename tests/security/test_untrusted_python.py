"""Attacks on `pool.python` where callers are not trusted: each is refused, and nothing of it has run."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from bridge_py.dynamic.allow_list import AllowList
from bridge_py.dynamic.dynamic_call import DynamicCall
from bridge_py.dynamic.stored_objects import ObjectStore, Placement
from bridge_py.wire.errors import NotAllowed, UsageError
from snakepit_trio._python import short_names
from tests.helpers import python_attempts as attempts

# Polars keeps the descriptors of its threads from its first query on.
pl.DataFrame({"a": [1]}).lazy().group_by("a").agg(pl.col("a").sum().alias("b")).collect()


class Session:
    """Dynamic calls of one session, in this process."""

    def __init__(self, *allow: str, roots: Sequence[str] = ()) -> None:
        self._allow_list = AllowList(["default", *allow], roots)
        self._store = ObjectStore(1 << 30)
        self._placement = Placement(1, first=True)

    def dynamic(self) -> DynamicCall:
        """A new call."""
        return DynamicCall(self._allow_list, self._store, "s", self._placement)

    def call(self, target: str, *args: Any, store_as: str | None = None, **kwargs: Any) -> Any:
        """What the tool does."""
        dynamic = self.dynamic()
        found = dynamic.answer(dynamic.run(target, args, kwargs), store_as, target=target)
        dynamic.reply(found)
        return found

    def store(self, name: str, value: Any) -> None:
        """Keep a value that has come."""
        dynamic = self.dynamic()
        dynamic.keep(name, value)
        dynamic.reply(None)

    def names(self) -> set[str]:
        """What is stored."""
        return set(self.dynamic().objects.entries)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Objects of all kinds."""
    made = Session(roots=[str(tmp_path)])
    for name, value in {
        "df": pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}),
        "series": pd.Series([1, 2]),
        "x": np.arange(4.0),
        "text": "{0.__class__}",
        "data": b"%s",
        "numbers": [1, 2],
        "frame": pl.DataFrame({"a": [1]}),
    }.items():
        made.store(name, value)
    made.call("collections.UserString", "{0.__class__}", store_as="words")
    made.call("sklearn.linear_model.LinearRegression", store_as="model")
    made.call("sklearn.model_selection.KFold", 2, store_as="kfold")
    made.call("stored.kfold.split", "stored.x", store_as="folds")
    made.call("stored.df.groupby", "a", store_as="groups")
    made.call("stored.df.rolling", 2, store_as="rolling")
    made.call("stored.frame.lazy", store_as="lazy")
    made.call("sklearn.datasets.load_iris", store_as="iris")
    made.call("scipy.sparse.csr_matrix", [[1, 0], [0, 1]], store_as="sparse")
    made.call("scipy.stats.norm", store_as="norm")
    made.call("numpy.random.default_rng", 3, store_as="generator")
    assert set(attempts.STORED) <= made.names()
    return made


def _at(canary: Path, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(attempts.CANARY, str(canary))
    if isinstance(value, (list, tuple)):
        return type(value)(_at(canary, item) for item in value)
    if isinstance(value, dict):
        return {key: _at(canary, item) for key, item in value.items()}
    return value


def _refusals(tried: Iterator[tuple[str, list[Any], dict[str, Any]]], session: Session) -> Iterator[str]:
    """Yield what was refused; fail for what was not. A target that this version of a library lacks does not count."""
    ran = []
    for target, args, kwargs in tried:
        try:
            given = session.call(target, *args, **kwargs)
        except NotAllowed:
            yield f"{target}{args}{kwargs}"
        except Exception as error:
            if not isinstance(error, UsageError) or "has no attribute" not in str(error):
                ran.append(f"{target} {args} {kwargs} ran, and raised {error!r}")
        else:
            ran.append(f"{target} {args} {kwargs} gave {given!r:.200}")
    assert ran == []


def test_targets_that_lead_out_are_refused(session: Session) -> None:
    before = session.names()
    refused = set(_refusals(((target, [], {}) for target in attempts.targets()), session))
    assert len(refused) > 2_000
    assert session.names() == before


def test_targets_that_are_none_are_refused(session: Session) -> None:
    refused = set(_refusals(((target, [], {}) for target in attempts.broken()), session))
    assert len(refused) > 100


def test_calls_with_arguments_that_lead_out_are_refused(session: Session, tmp_path: Path) -> None:
    canary, before = tmp_path / "canary", session.names()
    tried = ((target, _at(canary, args), _at(canary, kwargs)) for target, args, kwargs in attempts.calls())
    assert len(set(_refusals(tried, session))) > 800
    assert not canary.exists()
    assert session.names() == before
    assert list(session.dynamic().find("df").value.columns) == ["a", "b"]


@asynccontextmanager
async def _worker(**options: Any) -> AsyncIterator[tuple[snakepit.Pool, str]]:
    async with snakepit.open_pool(PythonCalls, workers=1, options=options) as pool, pool.session() as session:
        await pool.python.store("df", pd.DataFrame({"a": [1, 2]}), session=session)
        yield pool, session.id


async def test_a_method_called_by_its_call_method_keeps_its_rules_in_a_worker(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    async with _worker() as (pool, session):
        for calls in (".__call__", ".__call__.__call__"):
            with pytest.raises(NotAllowed, match="may be the name of a function"):
                await pool.python.call(
                    f"stored.df.apply{calls}", {"path": str(canary)}, args=["to_pickle"], session=session
                )
            with pytest.raises(NotAllowed, match="would write to a file"):
                await pool.python.call(f"stored.df.to_csv{calls}", args=[str(canary)], session=session)
        assert await pool.python.call("stored.df.sum.__call__", session=session) is not None
    assert not canary.exists()


async def test_objects_that_describe_raw_memory_are_refused_in_a_worker() -> None:
    secret = np.frombuffer(b"a secret of the worker", np.uint8)
    address = {"data": (secret.ctypes.data, False), "shape": (8,), "typestr": "|u1", "version": 3}
    async with _worker() as (pool, session):
        python = pool.python
        for target, args, kwargs in (
            ("numpy.ndarray", [[4]], {"dtype": "O", "buffer": b"\0" * 32}),
            ("numpy.frombuffer", [b"\0" * 32], {"dtype": "O"}),
            ("numpy.rec.array", [b"\0" * 32], {"dtype": "O", "shape": 4}),
            ("numpy.array", [{"__array_interface__": address}], {}),
            ("pandas.Series", [{"__array_interface__": address}], {}),
        ):
            with pytest.raises(NotAllowed):
                await python.call(target, kwargs, args=args, session=session)
        await python.call("sklearn.datasets.load_iris", store_as="iris", session=session)
        for target in ("stored.iris.update", "stored.iris.__setitem__", "stored.iris.setdefault"):
            with pytest.raises(NotAllowed):
                await python.call(target, args=["__array_interface__", address], session=session)
        assert len(await python.list_stored(session=session)) == 2


async def test_files_are_read_below_the_roots_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.csv").write_text("a\n1\n")
        (folder / "a.db").write_bytes(b"")
    (inside / "link.csv").symlink_to(outside / "a.csv")
    (inside / "folder").symlink_to(outside)
    async with _worker(roots=[str(inside)]) as (pool, _):
        python = pool.python
        assert len(await python.load_dataframe("csv", {"path": str(inside / "a.csv")})) == 1
        assert (await python.info())["roots"] == [str(inside)]
        for path in (
            *(outside / "a.csv", inside / "link.csv", inside / "folder" / "a.csv", inside / ".." / "outside" / "a.csv"),
            *(f"{inside}/*/../../outside/a.csv", f"{inside}/[f]older/a.csv", f"{inside}side/a.csv", "/etc/passwd"),
        ):
            for reader in ("pandas.read_csv", "polars.read_csv", "polars.scan_csv", "numpy.loadtxt"):
                with pytest.raises(NotAllowed):
                    await python.call(reader, args=[str(path)])
            with pytest.raises(NotAllowed, match="roots|no plain path"):
                await python.load_dataframe("csv", {"path": str(path)})
        with pytest.raises(NotAllowed, match=r"below none of the folders .*inside.*'roots'"):
            await python.load_dataframe("sql", {"sql": "SELECT 1", "con": f"sqlite:///{outside}/a.db"})
        with pytest.raises(snakepit.ToolError):
            query = f"VACUUM INTO '{outside}/new.db'"
            await python.load_dataframe("sql", {"sql": query, "con": f"sqlite:///{inside}/a.db"})
    assert not (outside / "new.db").exists()


async def test_without_roots_no_file_is_read(tmp_path: Path) -> None:
    """Neither in the working folder nor in the one for temporary files: other callers and programs use these too."""
    (tmp_path / "a.csv").write_text("a\n1\n")
    sqlite3.connect(tmp_path / "a.db").close()
    async with _worker() as (pool, session):
        python = pool.python
        assert (await python.info())["roots"] == []
        for path in (str(tmp_path / "a.csv"), "pyproject.toml", "./README.md", "", "/dev/null", "~/.netrc"):
            for reader in attempts.READERS:
                with pytest.raises(NotAllowed):
                    await python.call(reader, args=[path])
                with pytest.raises(NotAllowed):
                    await python.call(reader, args=[path], store_as="read", session=session)
            for source in ("csv", "json", "parquet", "excel"):
                with pytest.raises(NotAllowed, match=r"below none of the folders \(there are none\).*'roots'"):
                    await python.load_dataframe(source, {"path": path})
        with pytest.raises(NotAllowed, match="below none of the folders"):
            await python.load_dataframe("sql", {"sql": "SELECT 1", "con": f"sqlite:///{tmp_path}/a.db"})
        assert [ref.name for ref in await python.list_stored(session=session)] == ["df"]


@pytest.mark.parametrize("roots", ["data", b"data", Path("data"), None])
def test_roots_are_a_list(roots: Any) -> None:
    with pytest.raises(UsageError, match="give a list of folders"):
        PythonCalls(roots=roots)


def test_arguments_that_change_after_their_check_do_not_reach_the_call(session: Session) -> None:
    """A thread that swaps the texts of a stored dict never gets one of them past the rules."""
    names = {"a": "sum"}
    session.store("names", names)
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            names["a"] = "to_pickle"
            names["a"] = "sum"

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = {_outcome_of(session) for _ in range(2_000)}
    finally:
        is_over.set()
        thread.join()
    assert "sum" in outcomes
    assert outcomes <= {"sum", "refused"}


def _outcome_of(session: Session) -> str:
    try:
        session.call("stored.df.agg", "stored.names")
    except NotAllowed:
        return "refused"
    except Exception as error:
        return repr(error)
    return "sum"


def test_a_call_has_lists_and_frames_of_its_own(session: Session) -> None:
    session.call("numpy.random.shuffle", "stored.numbers")
    session.call("pandas.DataFrame.insert", "stored.df", 0, "new", 1)
    assert session.dynamic().find("numbers").value == [1, 2]
    assert list(session.dynamic().find("df").value.columns) == ["a", "b"]


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("stored.x.__setitem__", ["stored.where", 1.0]),
        ("stored.x.put", ["stored.where", 1.0]),
        ("numpy.put", ["stored.x", "stored.where", 1.0]),
        ("numpy.add.at", ["stored.x", "stored.where", 1.0]),
        ("stored.x.__getitem__", ["stored.where"]),
        ("stored.x.take", ["stored.where"]),
    ],
)
def test_positions_cannot_change_between_their_check_and_their_use(
    session: Session, target: str, args: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has an array of its own; the array that the call changes is the stored one."""
    where = np.zeros(2, np.int64)
    session.store("where", where)
    seen: list[Any] = []
    prepared = AllowList.prepared

    def watched(self: AllowList, *given: Any) -> Any:
        seen.append(prepared(self, *given))
        return seen[-1]

    monkeypatch.setattr(AllowList, "prepared", watched)
    session.call(target, *args)
    passed = [value for value in seen[0][0] if isinstance(value, np.ndarray)]
    assert not any(np.shares_memory(value, where) for value in passed)
    if "put" in target or "at" in target.split("."):
        assert session.dynamic().find("x").value[0] >= 1.0


def test_labels_that_are_made_inside_of_a_call_are_found_in_its_result(session: Session) -> None:
    session.store("s", pd.Series([1], index=["__array_inter"]))
    for target, args in (
        ("stored.s.add_suffix", ["face__"]),
        ("stored.s.rename", [{"__array_inter": "__array_" + "interface__"}]),
        ("stored.s.__setitem__", ["__array_" + "struct__", 1]),
    ):
        with pytest.raises(NotAllowed):
            session.call(target, *args, store_as="made")
    with pytest.raises(NotAllowed, match="by which libraries would ask"):
        session.store("made", pd.Series([1], index=["__array_interface__"]))
    assert "made" not in session.names()


def test_arrays_of_objects_tell_no_addresses(session: Session) -> None:
    session.store("objects", pd.Series([1, "a"], dtype=object))
    session.call("stored.objects.to_numpy", store_as="array")
    for target, args in (
        ("stored.array.tobytes", []),
        ("bytes", ["stored.array"]),
        ("bytearray", ["stored.array"]),
        ("numpy.ndarray.tobytes", ["stored.array"]),
    ):
        with pytest.raises(NotAllowed, match="addresses"):
            session.call(target, *args)


def test_what_a_model_has_learned_is_given_as_a_copy(session: Session) -> None:
    """Compiled code takes positions out of some of these arrays without a check."""
    session.call("sklearn.tree.DecisionTreeClassifier", store_as="tree")
    session.call("stored.tree.fit", [[0.0], [1.0]], [0, 1])
    session.call("stored.model.fit", [[0.0], [1.0]], [0.0, 1.0])
    session.call("stored.model.coef_.fill", 9.0)
    assert session.call("stored.model.coef_")[0] == pytest.approx(1.0)
    for target in ("stored.tree.tree_.children_left", "stored.tree.tree_.__setstate__", "stored.sparse.indices"):
        with pytest.raises(NotAllowed):
            session.call(target)


def test_objects_of_other_classes_are_held_and_no_more(session: Session) -> None:
    assert session.call("stored.iris.data").shape == (150, 4)
    for target, args in (
        ("stored.words.upper", []),
        ("stored.iris.clear", []),
        ("stored.folds.send", [None]),
        ("len", ["stored.words"]),
        ("stored.model", [[1]]),
        ("stored.model.__call__", [[1]]),
    ):
        with pytest.raises(UsageError):
            session.call(target, *args)


def test_an_owner_adds_exact_names() -> None:
    session = Session("pandas:DataFrame.query", "numpy:empty", "tests.helpers.python_targets")
    session.store("df", pd.DataFrame({"a": [1, 2]}))
    assert len(session.call("stored.df.query", "a > 1")) == 1
    assert session.call("numpy.empty", 3).shape == (3,)
    assert session.call("tests.helpers.python_targets.double", [1]) == [1, 1]
    for target in ("stored.df.eval", "numpy.empty_like", "stored.df.a.query"):
        with pytest.raises(NotAllowed, match=r"'allow': \['default', '"):
            session.call(target, "a")
    with pytest.raises(UsageError, match="is no pattern"):
        AllowList(["pandas:DataFrame.query.x"])


def test_a_wide_pattern_leaves_the_listed_modules_as_they_are() -> None:
    session = Session("numpy.*", "pandas.*", "polars.*", "sklearn.*", "scipy.*")
    for target in (
        "numpy.frombuffer",
        "numpy.empty",
        "numpy.vectorize",
        "sklearn.set_config",
        "sklearn.metrics.get_scorer",
        "scipy.stats.rv_histogram",
        "polars.sql_expr",
        "numpy.rec.array",
        "pandas.eval",
        "pandas.io.pickle.read_pickle",
        "scipy.io.loadmat",
    ):
        with pytest.raises(NotAllowed):
            session.call(target, b"12345678")


@pytest.mark.parametrize("pattern", ["tests.helpers.python_targets", "tests.helpers.python_targets.*", "tests.*"])
def test_what_an_owner_adds_gives_nothing_of_other_packages(pattern: str, tmp_path: Path) -> None:
    session = Session(pattern)
    for name in ("system", "lazy_system", "os.system", "time.sleep", "Path", "Path.cwd"):
        with pytest.raises(NotAllowed):
            session.call(f"tests.helpers.python_targets.{name}", f"touch {tmp_path}/canary")
    assert not (tmp_path / "canary").exists()


def test_common_work_goes_through(session: Session) -> None:
    session.store(
        "sales", pd.DataFrame({"shop": ["x", "y", "x"], "sold": [1, 2, 3], "day": pd.date_range("2024", periods=3)})
    )
    session.store("table", pl.DataFrame({"a": [1, 2, 2], "b": [1.0, 2.0, 3.0]}))
    session.call("polars.col", "b", store_as="column")
    session.call("stored.table.group_by", "a", store_as="by")
    for target, args, kwargs in (
        ("stored.by.agg", ["stored.column"], {}),
        ("stored.column.sum", [], {"store_as": "total"}),
        ("stored.table.select", ["stored.total"], {}),
        ("stored.table.with_columns", [], {"c": "stored.column"}),
        ("stored.sales.groupby", ["shop"], {"store_as": "shops"}),
        ("stored.shops.sold.sum", [], {}),
        ("stored.shops.agg", [], {"most": ("sold", "max")}),
        ("stored.sales.shop.str.upper", [], {}),
        ("stored.sales.day.dt.year", [], {}),
        ("stored.sales.sort_values", ["sold"], {}),
        ("stored.sales.drop", [], {"columns": ["day"]}),
        ("stored.sales.rename", [], {"columns": {"sold": "sales"}}),
        ("stored.sales.pivot_table", [], {"index": "shop", "values": "sold", "aggfunc": "sum"}),
        ("stored.sales.loc.__getitem__", [0], {}),
        ("pandas.get_dummies", ["stored.sales.shop"], {}),
        ("pandas.to_datetime", [["2024-01-01"]], {}),
        ("sklearn.pipeline.Pipeline", [[("scale", "stored.scaler"), ("fit", "stored.model")]], {"store_as": "pipe"}),
        ("stored.pipe.fit", [[[0.0], [1.0]], [0.0, 1.0]], {}),
        ("stored.pipe.predict", [[[2.0]]], {}),
        (
            "sklearn.model_selection.GridSearchCV",
            ["stored.model", {"fit_intercept": [True, False]}],
            {"store_as": "grid"},
        ),
        ("stored.grid.fit", [[[0.0], [1.0], [2.0], [3.0]] * 5, [0.0, 1.0, 2.0, 3.0] * 5], {}),
        ("stored.grid.best_params_", [], {}),
        ("stored.grid.best_estimator_.coef_", [], {}),
        ("sklearn.model_selection.cross_val_score", ["stored.model", [[0.0], [1.0]] * 10, [0.0, 1.0] * 10], {}),
        ("numpy.linalg.solve", [[[2.0, 0.0], [0.0, 1.0]], [1.0, 1.0]], {}),
        ("numpy.array", [["O", "object"]], {}),
        ("scipy.stats.ttest_ind", [[1.0, 2.0, 3.0], [2.0, 3.0, 5.0]], {"store_as": "test"}),
        ("stored.test.pvalue", [], {}),
        ("scipy.sparse.csr_matrix", [([1, 2], ([0, 1], [0, 1]))], {"store_as": "m"}),
        ("stored.m.toarray", [], {}),
        ("collections.Counter", ["abca"], {"store_as": "counter"}),
        ("stored.counter.most_common", [1], {}),
        ("itertools.chain.from_iterable", [[[1], [2]]], {"store_as": "chain"}),
        ("list", ["stored.chain"], {}),
    ):
        if target == "sklearn.pipeline.Pipeline":
            session.call("sklearn.preprocessing.StandardScaler", store_as="scaler")
        session.call(target, *args, **kwargs)


def test_every_short_name_of_a_model_is_listed() -> None:
    session = Session()
    for kind in short_names._MODELS:
        assert isinstance(session.call(short_names.model(kind), store_as="model"), snakepit.RemoteRef), kind
