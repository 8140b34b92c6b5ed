"""What dynamic calls may not reach: attempts in a table, each refused by a real worker, and what must go on working."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from bridge_py.wire.errors import NotAllowed, UsageError

CANARY = "CANARY"  # stands for the path of a file that no attempt may make
CODE = f"open({CANARY!r}, 'w')"

# Targets alone, each of which would be a way out. They are tried as a call, as a step of a pipeline, by inspect(), and,
# where they begin with "stored.", as an argument.
WAYS_OUT = """
os.system os.popen os.remove os.path.join os.environ os.fork os.execv posix.system nt.system subprocess.run
subprocess.Popen subprocess.check_output subprocess.os.system sys.exit sys.modules sys.modules.get sys.path.append
sys.settrace builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr builtins.setattr
builtins.delattr builtins.__import__ builtins.globals builtins.locals builtins.vars builtins.type builtins.dir
builtins.input builtins.breakpoint builtins.help builtins.memoryview builtins.object builtins.super
builtins.classmethod builtins.staticmethod builtins.property builtins.callable builtins.isinstance builtins.issubclass
builtins.map builtins.filter builtins.iter builtins.id builtins.print builtins.exit builtins.quit builtins.hasattr
builtins.format builtins.__build_class__ builtins.__loader__ builtins.__spec__ builtins.__dict__
builtins.BaseException eval exec compile open getattr setattr delattr __import__ globals locals vars type dir input
breakpoint help object super exit quit hasattr format print id iter map filter callable memoryview __builtins__
__build_class__ type.mro type.__subclasses__ object.__subclasses__ object.__reduce__ str.__class__ int.__bases__
list.__mro__ str.format str.format_map bytes.__class__ dict.__class__.__call__ importlib.import_module
importlib.reload importlib.util.find_spec imp.load_source runpy.run_path runpy.run_module code.interact
code.InteractiveInterpreter codeop.compile_command pdb.run bdb.Bdb profile.run cProfile.run timeit.timeit pickle.loads
pickle.load pickle.Unpickler _pickle.loads marshal.loads shelve.open dill.loads cloudpickle.loads joblib.load
joblib.dump ctypes.CDLL ctypes.cast cffi.FFI _ctypes.dlopen multiprocessing.Process threading.Thread
_thread.start_new_thread concurrent.futures.ProcessPoolExecutor asyncio.run socket.socket http.client.HTTPConnection
urllib.request.urlopen ftplib.FTP smtplib.SMTP ssl.create_default_context shutil.rmtree pathlib.Path tempfile.mkstemp
io.open io.FileIO _io.open glob.glob fileinput.input mmap.mmap inspect.getsource gc.get_objects gc.get_referrers
traceback.print_exc types.FunctionType types.CodeType weakref.ref operator.attrgetter operator.methodcaller
functools.partial functools.reduce functools.wraps dataclasses.make_dataclass collections.namedtuple
collections.abc.Callable collections._sys collections._collections_abc.sys enum.Enum typing.NamedTuple
typing.get_type_hints string.Formatter string.Template logging.config.dictConfig logging.os signal.signal
resource.setrlimit atexit.register faulthandler.dump_traceback pty.spawn platform.os webbrowser.open __main__.main
bridge_py.main.run bridge_py.adapters.python_calls.PythonCalls snakepit_trio.open_pool json.decoder json.codecs
json.codecs.open json.scanner.re json.__builtins__ json.tool.main random._os random._os.system random.os
statistics.sys statistics.sys.modules re.enum re._compiler re.functools decimal.sys fractions.sys fractions.operator
datetime.sys math.__loader__ math.__spec__ itertools.__loader__ heapq.merge copy.deepcopy copyreg.pickle uuid.uuid1
uuid.os antigravity this.s site.main sysconfig.get_config_var numpy.os numpy.sys numpy.lib.npyio.os
numpy.lib.npyio.DataSource numpy.lib.format.open_memmap numpy.lib.format.read_array numpy.lib.stride_tricks.as_strided
numpy.lib.introspect numpy.ctypeslib.load_library numpy.ctypeslib.ctypes.CDLL numpy.f2py.compile numpy.f2py.run_main
numpy.testing.runstring numpy.testing.assert_raises numpy.distutils.exec_command numpy.distutils.core.setup
numpy.core.multiarray numpy._core.multiarray._reconstruct numpy.__builtins__ numpy.__dict__ numpy.save numpy.savez
numpy.savez_compressed numpy.savetxt numpy.memmap numpy.bmat numpy.test numpy.ndarray.tofile numpy.ndarray.dump
numpy.ndarray.ctypes numpy.ndarray.__reduce__ numpy.ndarray.__class__ numpy.ndarray.mro numpy.linalg.linalg.sys
numpy.random._pickle numpy.random.mtrand.sys numpy.ma.core.builtins numpy.ma.core.sys numpy.char.sys
numpy.fft.helper.sys numpy.__config__.show numpy.show_config.__globals__ numpy.sum.__globals__
numpy.linalg.norm.__globals__ numpy.linalg.norm.__wrapped__ numpy.linalg.norm.__code__ numpy.vectorize.__init__
numpy.polynomial.polynomial.np.os numpy.polynomial.polyutils.functools numpy.str_.format pandas.eval
pandas.read_pickle pandas.to_pickle pandas.read_hdf pandas.HDFStore pandas.read_sql pandas.read_sql_query
pandas.read_sql_table pandas.read_gbq pandas.read_clipboard pandas.ExcelWriter pandas.test pandas.show_versions
pandas.read_xml pandas.set_option pandas.option_context pandas.reset_option pandas.io.common.os
pandas.io.common.zipfile pandas.io.common.subprocess pandas.io.pickle.pickle.loads pandas.io.sql.read_sql
pandas.io.clipboard.subprocess.Popen pandas.core.computation.eval.eval pandas.compat.os
pandas.compat.pickle_compat.loads pandas.util.version pandas.testing.assert_frame_equal
pandas.api.extensions.register_dataframe_accessor pandas.core.common.inspect pandas.plotting.plot_params
pandas.DataFrame.eval pandas.DataFrame.query pandas.DataFrame.to_pickle pandas.DataFrame.to_sql
pandas.DataFrame.to_clipboard pandas.DataFrame.to_parquet pandas.DataFrame.style pandas.DataFrame.plot
pandas.DataFrame.__init__.__globals__ pandas.DataFrame._constructor pandas.DataFrame._mgr pandas.read_csv.__globals__
pandas.read_csv.__wrapped__ pandas.read_csv.__code__.co_code pandas.options.__class__ scipy.LowLevelCallable
scipy.io.savemat scipy.io.loadmat scipy.io.wavfile.write scipy.datasets.face scipy.test scipy.sparse.save_npz
scipy.stats.rv_continuous scipy.stats.rv_discrete scipy._lib._ccallback.LowLevelCallable scipy.os scipy.sys
scipy.special.os scipy.stats.distributions.sys scipy.optimize.linesearch.warn sklearn.os sklearn.externals.joblib.load
sklearn.utils.parallel.joblib sklearn.utils.os sklearn.utils._testing.os sklearn.datasets.fetch_openml
sklearn.datasets.fetch_california_housing sklearn.datasets.dump_svmlight_file sklearn.datasets.clear_data_home
sklearn.datasets.get_data_home sklearn.tree.export_graphviz sklearn.show_versions sklearn.base.os
sklearn.datasets._base.os sklearn.conftest.pytest sklearn.utils.estimator_checks.check_estimator
sklearn.ensemble._forest.threading sklearn.base.BaseEstimator.__setstate__ sklearn.feature_extraction.image.os
sklearn.metrics._scorer.partial sklearn.datasets.load_iris.__globals__ polars.plugins.register_plugin_function
polars.SQLContext polars.read_database polars.Config polars.show_versions polars.LazyFrame.deserialize
polars.DataFrame.deserialize polars.DataFrame.serialize polars.DataFrame.write_parquet polars.LazyFrame.sink_csv
polars.api.register_dataframe_namespace polars.sql polars.io.os polars.os stored.df.__class__
stored.df.__class__.__mro__ stored.df._mgr stored.df.eval stored.df.query stored.df.to_pickle stored.df.to_excel
stored.df.to_sql stored.df.style stored.df.plot stored.df.plot.line stored.df.hist stored.df.head.__func__
stored.df.head.__self__ stored.df.head.__globals__ stored.df.head.im_func stored.df.__reduce__ stored.df.__dict__
stored.df.__init__ stored.df.__getattribute__ stored.df.__setattr__ stored.df.__init_subclass__ stored.x.ctypes
stored.x.ctypes.data_as stored.x.tofile stored.x.dump stored.x.__array_interface__ stored.x.__setstate__
stored.x.__reduce_ex__ stored.x.__class__.__base__ stored.x.sum.__self__ stored.x.dtype.__class__ stored.text.format
stored.text.format_map stored.text.__class__ stored.text.__mod__ stored.text.__format__ stored.data.decode.__self__
stored.data.__mod__ stored.model.fit.__globals__ stored.model.fit.__wrapped__ stored.model.__dict__
stored.model.__setstate__ stored.model._validate_params stored.model.__sklearn_tags__
stored.model.__class__.__module__ stored.folds.gi_frame stored.folds.gi_code stored.folds.gi_frame.f_globals
stored.folds.gi_yieldfrom stored.folds.send stored.folds.throw stored.folds.close stored.folds.cr_frame
stored.folds.tb_frame stored.folds.f_back stored.folds.f_globals stored.folds.func_globals stored.folds.func_code
stored.path.write_text stored.path.open stored.path.unlink stored.path.parent.iterdir stored.path.exists
stored.numbers.__class__ stored.numbers.__iter__ stored.numbers.append.__self__ stored.frame.write_parquet
stored.frame.write_excel stored.frame.map_rows stored.words.format stored.words.format_map stored.frame.plot
stored.frame.serialize stored.frame.sql
"""
TARGETS = WAYS_OUT.split()

BROKEN = [
    *(
        "",
        ".",
        "..",
        "math..sqrt",
        ".math.sqrt",
        "math.sqrt.",
        "math .sqrt",
        " math.sqrt",
        "math.sqrt\n",
        "math.sqrt()",
    ),
    *("math.sqrt;os", "math/sqrt", "math:sqrt", "math['sqrt']", "os\x00.system", "math.\u017fqrt", "\u1d0fs.system"),
    *("\uff4f\uff53.system", "math.sqr\u0442", "o\u200bs.system", "m\u0430th.pi", "a" * 501, ".".join(["math"] * 200)),
    *("1math.sqrt", "math.1", "math.sqrt#", "stored..x", "stored.df.", "stored.d f", "stored.x[0]", "*", "math.*"),
]

# Calls whose target alone may be harmless, but not with these arguments.
CALLS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("stored.df.to_csv", [CANARY], {}),
    ("stored.df.to_csv", [], {"path_or_buf": CANARY}),
    ("stored.df.to_json", [CANARY], {}),
    ("stored.df.to_string", [CANARY], {}),
    ("stored.df.to_html", [], {"buf": CANARY}),
    ("stored.df.a.to_csv", [CANARY], {}),
    ("pandas.DataFrame.to_csv", ["stored.df", CANARY], {}),
    ("stored.df.apply", ["to_pickle"], {"path": CANARY}),
    ("stored.df.apply", ["to_csv"], {"path_or_buf": CANARY}),
    ("stored.df.apply", ["eval"], {"expr": CODE}),
    ("stored.df.apply", ["apply"], {"args": ["to_pickle", CANARY]}),
    ("stored.df.apply", ["stored.name"], {"path": CANARY}),
    ("stored.df.apply", ["stored.names"], {}),
    ("stored.df.agg", ["to_pickle", 0, CANARY], {}),
    ("stored.df.agg", [["sum", "to_pickle"]], {"path": CANARY}),
    ("stored.df.agg", [{"a": "to_csv"}], {}),
    ("stored.df.agg", [], {"x": ["a", "to_pickle"]}),
    ("stored.df.agg", ["stored.names"], {}),
    ("stored.df.agg", ["stored.array_of_names"], {}),
    ("stored.df.agg", ["stored.series_of_names"], {}),
    ("stored.df.agg", ["__class__"], {}),
    ("stored.df.agg", ["_mgr"], {}),
    ("stored.df.aggregate", ["to_pickle"], {"path": CANARY}),
    ("stored.df.transform", ["to_pickle"], {"path": CANARY}),
    ("stored.df.a.apply", ["to_pickle"], {"path": CANARY}),
    ("stored.df.a.agg", ["to_pickle"], {"path": CANARY}),
    ("stored.df.a.transform", ["to_csv"], {"path_or_buf": CANARY}),
    ("stored.df.pipe", ["to_pickle"], {}),
    ("stored.df.pivot_table", [], {"index": "a", "values": "b", "aggfunc": "to_pickle"}),
    ("stored.df.pivot_table", [], {"index": "a", "values": "b", "aggfunc": "stored.array_of_names"}),
    ("stored.df.pivot_table", ["b", "a", None, "to_pickle"], {}),
    ("pandas.pivot_table", ["stored.df"], {"index": "a", "aggfunc": ["to_csv"]}),
    ("pandas.crosstab", [[1], [2]], {"values": [3], "aggfunc": "to_pickle"}),
    ("stored.groups.agg", ["to_pickle"], {"path": CANARY}),
    ("stored.groups.apply", ["to_csv", CANARY], {}),
    ("stored.groups.transform", ["to_pickle"], {}),
    ("stored.groups.filter", ["to_csv", True, CANARY], {}),
    ("stored.rolling.agg", ["to_pickle"], {}),
    ("pandas.DataFrame.agg", ["stored.df", "to_pickle"], {"path": CANARY}),
    ("pandas.DataFrame.apply", ["stored.df", "to_pickle"], {"path": CANARY}),
    ("numpy.load", [CANARY], {"allow_pickle": True}),
    ("numpy.load", [CANARY, "w+"], {}),
    ("numpy.load", [CANARY], {"mmap_mode": "w+"}),
    ("numpy.load", [CANARY, None, True], {}),
    ("numpy.loadtxt", ["http://127.0.0.1:9/x"], {}),
    ("numpy.genfromtxt", ["http://127.0.0.1:9/x"], {}),
    ("pandas.read_csv", ["http://127.0.0.1:9/x"], {}),
    ("pandas.read_csv", [], {"filepath_or_buffer": "s3://bucket/x"}),
    ("pandas.read_csv", ["file:///etc/passwd"], {}),
    ("pandas.read_csv", ["x.csv"], {"storage_options": {"a": "b"}}),
    ("pandas.read_json", ["https://127.0.0.1:9/x"], {}),
    ("pandas.read_parquet", ["simplecache::http://127.0.0.1:9/x"], {}),
    ("polars.read_csv", ["http://127.0.0.1:9/x"], {}),
    ("polars.scan_csv", ["http://127.0.0.1:9/x"], {}),
    ("stored.frame.write_csv", [CANARY], {}),
    ("stored.frame.write_json", [CANARY], {}),
    ("stored.frame.write_ndjson", [], {"file": CANARY}),
    ("sklearn.pipeline.make_pipeline", ["stored.model"], {"memory": CANARY}),
    ("sklearn.pipeline.Pipeline", [[["m", "stored.model"]]], {"memory": CANARY}),
    ("sklearn.cluster.FeatureAgglomeration", [], {"memory": CANARY}),
    ("sklearn.model_selection.GridSearchCV", ["stored.model", {"memory": [CANARY]}], {}),
    ("sklearn.model_selection.GridSearchCV", ["stored.model"], {"param_grid": {"step__memory": [CANARY]}}),
    ("sklearn.datasets.clear_data_home", [CANARY], {}),
    ("stored.x.resize", [100], {"refcheck": False}),
    # Modules, classes and functions as arguments, by reference.
    ("list", [["stored.x.sum"]], {}),
    ("list", [["stored.df.head"]], {}),
    ("repr", ["stored.model.fit"], {}),
    ("str", ["stored.df.head"], {}),
    ("tuple", [["stored.text.upper"]], {}),
    ("stored.df.apply", ["stored.x.sum"], {}),
    ("stored.df.pipe", ["stored.model.fit"], {}),
    ("stored.df.a.map", ["stored.text.upper"], {}),
    ("sorted", [[1]], {"key": "stored.numbers.append"}),
    ("max", [[1]], {"key": "stored.text.format"}),
    ("numpy.vectorize", ["stored.text.upper"], {}),
    ("numpy.frompyfunc", ["stored.model.fit", 1, 1], {}),
    ("sklearn.metrics.make_scorer", ["stored.model.score"], {}),
    ("sklearn.preprocessing.FunctionTransformer", ["stored.df.agg"], {}),
    ("json.dumps", [1], {"default": "stored.df.eval"}),
    ("json.loads", ["{}"], {"object_hook": "stored.text.format_map"}),
    ("re.sub", ["a", "stored.text.format", "a"], {}),
    ("dict", [], {"a": {"b": ["stored.folds.gi_frame"]}}),
    ("len", ["stored.df.__class__"], {}),
    ("len", ["stored.text.__class__.__mro__"], {}),
    # Results that are not passed on.
    ("math", [], {}),
    ("numpy", [], {}),
    ("numpy.linalg", [], {}),
    ("sklearn.metrics.pairwise.distance_metrics", [], {}),
    ("sklearn.metrics.pairwise.kernel_metrics", [], {}),
]


@asynccontextmanager
async def _prepared() -> AsyncIterator[tuple[snakepit.Pool, str]]:
    options = {"roots": [tempfile.gettempdir()]}
    async with snakepit.open_pool(PythonCalls, workers=1, options=options) as pool, pool.session() as session:
        values = {
            "df": pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}),
            "x": np.arange(4.0),
            "text": "{0.__class__}",
            "data": b"%s",
            "name": "to_pickle",
            "names": ["sum", "to_pickle"],
            "array_of_names": np.array(["to_pickle"]),
            "series_of_names": pd.Series(["to_pickle"]),
            "numbers": [1, 2],
            "path": Path("/nowhere"),
        }
        for name, value in values.items():
            await pool.python.store(name, value, session=session)
        await pool.python.create_model("linear_regression", store_as="model", session=session)
        await pool.python.pipeline(
            [
                ("sklearn.model_selection.KFold", {}, {"args": [2], "store_as": "kfold"}),
                ("stored.kfold.split", {}, {"args": ["stored.x"], "store_as": "folds"}),
                ("stored.df.groupby", {}, {"args": ["a"], "store_as": "groups"}),
                ("stored.df.rolling", {}, {"args": [2], "store_as": "rolling"}),
                ("polars.DataFrame", {"data": {"a": [1]}}, {"store_as": "frame"}),
                ("collections.UserString", {}, {"args": ["{0.__class__}"], "store_as": "words"}),
                ("pandas.Timestamp", {}, {"args": ["2024-01-01"], "store_as": "zone"}),
            ],
            session=session,
        )
        yield pool, session.id


def _at(canary: Path, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(CANARY, str(canary))
    if isinstance(value, list):
        return [_at(canary, item) for item in value]
    if isinstance(value, dict):
        return {key: _at(canary, item) for key, item in value.items()}
    return value


async def _outcome(attempt: Awaitable[Any], what: object, refused: list[object]) -> None:
    """An attempt is refused, or what it names is not there in the versions of the libraries that are installed."""
    with pytest.raises(UsageError) as caught:
        pytest.fail(f"{what} gave {await attempt!r:.200}")
    if isinstance(caught.value, NotAllowed):
        refused.append(what)
    else:
        assert "has no attribute" in str(caught.value), what


async def test_every_way_out_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    refused: list[object] = []
    async with _prepared() as (pool, session):
        python = pool.python
        for target in [*TARGETS, *BROKEN]:
            await _outcome(python.call(target, args=[str(canary)], session=session), target, refused)
            await _outcome(python.call(target, session=session), target, refused)
            await _outcome(python.inspect(target, session=session), target, refused)
        for target in TARGETS:
            if target.startswith("stored."):
                await _outcome(python.call("len", args=[[target]], session=session), target, refused)
                steps = [("math.sqrt", {}, {"args": [1]}), (target, {})]
                await _outcome(python.pipeline(steps, session=session), target, refused)
                await _outcome(python.store("copy", {"a": target}, session=session), target, refused)
        for name, args, kwargs in CALLS:
            call = python.call(name, _at(canary, kwargs), args=_at(canary, args), session=session)
            await _outcome(call, (name, args, kwargs), refused)
        stored = await python.list_stored(session=session)
    assert not canary.exists()
    assert len(set(map(str, refused))) > 450
    assert "copy" not in {ref.name for ref in stored}


async def test_the_same_goes_through_where_all_callers_are_trusted(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    async with snakepit.open_pool(PythonCalls, workers=1, options={"trusted": True}) as pool, pool.session() as session:
        python = pool.python
        await python.call("os.system", args=[f"touch {canary}"])
        assert canary.exists()
        canary.unlink()
        await python.store("df", pd.DataFrame({"a": [1]}), session=session)
        await python.call("stored.df.to_csv", args=[str(canary)], session=session)
        assert canary.exists()
        assert await python.call("eval", args=["2 + 3"]) == 5
        assert await python.call("stored.df.__class__.__name__", session=session) == "DataFrame"
        assert isinstance(await python.call("sys", session=session), snakepit.RemoteRef)


LEGITIMATE: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("math.floor", [2.5], {}),
    ("statistics.mean", [[1, 2, 3]], {}),
    ("decimal.Decimal", ["1.5"], {}),
    ("datetime.datetime.fromisoformat", ["2024-01-02"], {}),
    ("collections.Counter", ["abca"], {}),
    ("itertools.combinations", [[1, 2, 3], 2], {}),
    ("json.dumps", [{"a": 1}], {}),
    ("re.findall", ["a+", "caat"], {}),
    ("random.Random", [3], {}),
    ("str.upper", ["abc"], {}),
    ("stored.text.upper", [], {}),
    ("stored.text.split", ["."], {}),
    ("len", ["abc"], {}),
    ("builtins.sorted", [[3, 1]], {}),
    ("dict.fromkeys", [["a"], 1], {}),
    ("numpy.array", [[1, 2]], {}),
    ("numpy.__version__", [], {}),
    ("numpy.linalg.norm", ["stored.x"], {}),
    ("numpy.random.default_rng", [3], {}),
    ("numpy.add.reduce", [[1, 2]], {}),
    ("numpy.float64", [3], {}),
    ("numpy.polynomial.Polynomial", [[1, 2]], {}),
    ("numpy.load", ["FILE.npy"], {}),
    ("numpy.loadtxt", ["FILE.txt"], {}),
    ("numpy.vstack", [["stored.x", "stored.x"]], {}),
    ("pandas.read_csv", ["FILE.csv"], {"low_memory": False}),
    ("pandas.DataFrame", [{"a": [1, 2]}], {}),
    ("pandas.concat", [["stored.df", "stored.df"]], {}),
    ("pandas.date_range", ["2024-01-01"], {"periods": 3}),
    ("pandas.merge", ["stored.df", "stored.df"], {"on": "a"}),
    ("pandas.api.types.is_list_like", [[1]], {}),
    ("pandas.tseries.offsets.Day", [2], {}),
    ("pandas.pivot_table", ["stored.df"], {"values": "b", "index": "a", "aggfunc": "mean"}),
    ("stored.df.describe", [], {}),
    ("stored.df.agg", [["sum", "mean"]], {}),
    ("stored.df.a.mean", [], {}),
    ("stored.df.a.map", [{1: 2}], {}),
    ("stored.df.__getitem__", [["a"]], {}),
    ("stored.df.iloc.__getitem__", [0], {}),
    ("stored.df.to_csv", [], {"index": False}),
    ("stored.df.shape", [], {}),
    ("stored.df.columns", [], {}),
    ("stored.df.apply", ["sum"], {}),
    ("stored.groups.mean", [], {}),
    ("stored.groups.agg", [{"b": "max"}], {}),
    ("stored.df.to_dict", [], {}),
    ("list", ["stored.folds"], {}),
    ("sklearn.datasets.load_iris", [], {}),
    ("sklearn.model_selection.train_test_split", ["stored.x"], {"random_state": 0}),
    ("sklearn.pipeline.make_pipeline", ["stored.model"], {}),
    ("sklearn.metrics.accuracy_score", [[1, 0], [1, 1]], {}),
    ("sklearn.model_selection.GridSearchCV", ["stored.model", {"fit_intercept": [True]}], {}),
    ("sklearn.base.clone", ["stored.model"], {}),
    ("sklearn.__version__", [], {}),
    ("stored.model.get_params", [], {}),
    ("scipy.stats.norm.cdf", [0], {}),
    ("scipy.linalg.inv", [[[2.0, 0], [0, 1.0]]], {}),
    ("scipy.fft.fft", [[1, 2]], {}),
    ("scipy.special.gamma", [3], {}),
    ("scipy.sparse.csr_matrix", [[[1, 0]]], {}),
    ("polars.read_csv", ["FILE.csv"], {}),
    ("polars.col", ["a"], {}),
    ("stored.frame.write_csv", [], {}),
]


async def test_what_is_wanted_goes_through(tmp_path: Path) -> None:
    np.save(tmp_path / "file.npy", np.arange(3))
    (tmp_path / "file.txt").write_text("1 2\n3 4\n")
    (tmp_path / "file.csv").write_text("a,b\n1,2\n")
    async with _prepared() as (pool, session):
        for target, args, kwargs in LEGITIMATE:
            given = [arg.replace("FILE", str(tmp_path / "file")) if isinstance(arg, str) else arg for arg in args]
            await pool.python.call(target, kwargs, args=given, session=session)
