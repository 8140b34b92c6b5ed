"""Attempts to get out of dynamic calls that are not trusted: targets, calls, signatures, states and models."""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any, Final

from bridge_py.dynamic import kinds
from bridge_py.dynamic.allowed_names import BUILTINS, SPECIAL

Call = tuple[str, list[Any], dict[str, Any]]
#: Stands for the path of a file that no attempt may make.
CANARY = "CANARY"
CODE = f"open({CANARY!r}, 'w')"


def _words(text: str) -> list[str]:
    return text.split()


#: Stored objects that attempts name.
STORED = _words("df series x text data numbers words model folds groups rolling frame lazy iris sparse norm generator")

_SPECIAL = [
    f"__{name}__"
    for name in _words(
        "class base bases mro subclasses dict doc module name qualname globals code closure defaults"
        " kwdefaults func self"
        " wrapped builtins import init new del reduce reduce_ex getstate setstate getattribute getattr setattr delattr"
        " init_subclass subclasshook prepare instancecheck format sizeof dir hash array_interface array_struct array"
        " array_ufunc array_function array_wrap array_finalize dlpack dlpack_device buffer dataframe arrow_c_stream"
        " arrow_c_array iter next enter exit index float int set_name get set annotations weakref slots"
        " loader spec file"
        " path cached getinitargs getnewargs getnewargs_ex copy deepcopy objclass text_signature traceback"
        " cause context"
    )
]
_PRIVATE = _words("_mgr _data _constructor _meta _df _s _ldf _pyexpr _validate_params _ctx _x _values _dispatch _ufunc")
_FRAMES = _words("gi_frame gi_code cr_frame f_globals f_back f_builtins tb_frame co_code func_globals im_func mro")
_NAMES = _words(
    "to_pickle to_csv to_sql to_hdf to_parquet to_excel eval query pipe __class__ _mgr __reduce__ apply agg to_json"
    " to_clipboard style plot __getattribute__ __init__ to_feather to_latex to_markdown to_xml groupby"
)
_OTHER = _words(
    "eval query pipe style plot to_pickle to_sql to_parquet write_parquet sink_csv map_rows map_elements serialize"
)
_RAW = _words(
    "frombuffer ndarray recarray record memmap fromstring fromfile fromregex from_dlpack empty empty_like nditer"
    " nested_iters frompyfunc vectorize apply_along_axis fromfunction piecewise require matrix asmatrix bmat r_ c_ s_"
    " mgrid ogrid sctypeDict typecodes ScalarType errstate seterrcall set_printoptions setbufsize"
    " get_include save savez"
    " savetxt lib ctypeslib f2py testing core rec ma.frombuffer ma.fromflex ma.ids ma.MaskedArray.__setstate__ void"
    " dtype object_ info shares_memory random.BitGenerator random.get_state random.set_state ndarray.setflags"
    " ndarray.view ndarray.getfield ndarray.setfield ndarray.data ndarray.base ndarray.resize ndarray.__setstate__"
    " rec.recarray rec.array rec.fromrecords rec.fromstring lib.stride_tricks.as_strided lib.stride_tricks.DummyArray"
)


def targets() -> Iterator[str]:
    """Yield targets that must be refused whatever they are given."""
    allowed = {name.partition(".")[0] for name in kinds.MODULES}
    for module in sorted(sys.stdlib_module_names - allowed):
        yield f"{module}.open"
    for name in dir(builtins):
        if name not in BUILTINS:
            yield name
            yield f"builtins.{name}"
    for stored in STORED:
        for name in (*_SPECIAL, *_PRIVATE, *_FRAMES):
            yield f"stored.{stored}.{name}"
        for name in _OTHER:
            yield f"stored.{stored}.{name}.__call__"
    for path in ("numpy.sum", "pandas.read_csv", "sklearn.svm.SVC", "polars.col", "json.loads", "str.join", "dict"):
        for name in _SPECIAL:
            yield f"{path}.{name}"
            yield f"{path}.__call__.{name}"
    yield from (f"numpy.{name}" for name in _RAW)
    yield from _modules_of_modules()


def _modules_of_modules() -> Iterator[str]:
    """Yield what careless modules hold: other modules, lazily imported ones too, and functions of other packages."""
    for name in kinds.MODULES:
        module = importlib.import_module(name)
        for attribute, found in list(vars(module).items()):
            path = f"{name}.{attribute}"
            is_module = isinstance(found, types.ModuleType)
            if attribute not in kinds.MODULES[name] and path not in kinds.MODULES and (is_module or callable(found)):
                yield path
                if is_module:
                    yield f"{path}.system"


def broken() -> Iterator[str]:
    """Yield targets that are no targets, and those that only look like a name to some parsers."""
    letters = {"o": "\uff4f\u1d0f\u043e\u03bf", "s": "\uff53\u0455\u017f", "e": "\uff45\u0435", "a": "\uff41\u0430"}
    for word in ("os.system", "eval", "math.sqrt", "stored.df.eval", "builtins.exec"):
        for plain, others in letters.items():
            for other in others:
                if plain in word:
                    yield word.replace(plain, other, 1)
        for mark in ("\u200b", "\u202e", "\0", "\n", " ", "()", "[0]", ";", "#", "\\", "'", "\ud800"):
            yield word + mark
            yield mark + word


def calls() -> Iterator[Call]:
    """Yield calls whose target alone may be harmless, but not with these arguments."""
    yield from _names_of_functions()
    yield from _files()
    yield from _memory()
    yield from _settings()
    yield from _functions_as_arguments()


def _names_of_functions() -> Iterator[Call]:
    for name in _NAMES:
        for target in ("stored.df.apply", "stored.df.agg", "stored.df.transform", "stored.series.apply"):
            yield target, [name], {}
            yield f"{target}.__call__", [name], {"path": CANARY}
            yield f"{target}.__call__.__call__", [], {"func": name}
        for target in ("stored.groups.agg", "stored.groups.apply", "stored.rolling.agg", "stored.groups.transform"):
            yield target, [[name]], {}
            yield f"{target}.__call__", [{"b": name}], {}
        yield "stored.df.groupby.__call__.agg", [name], {}
        yield "stored.df.pivot_table.__call__", [], {"index": "a", "aggfunc": name}
        yield "stored.df.agg", [], {"new": ("a", name)}
        yield "pandas.pivot_table", ["stored.df"], {"index": "a", "aggfunc": [name]}
        yield "stored.df.agg", [{"a": ["sum", name]}], {}
    for window in ("np", "get_window", "__loader__", "sys", "_windows", "os.system"):
        yield "stored.df.rolling.__call__", [2], {"win_type": window}
        yield "stored.df.rolling", [], {"window": 2, "win_type": window}


READERS: Final = (
    *("pandas.read_csv", "pandas.read_json", "pandas.read_parquet", "pandas.read_table", "pandas.read_fwf"),
    *("pandas.read_feather", "pandas.read_excel", "pandas.read_orc", "polars.read_csv", "polars.scan_csv"),
    *("polars.read_parquet", "polars.scan_parquet", "polars.read_ndjson", "polars.scan_ndjson", "polars.read_ipc"),
    *("numpy.load", "numpy.loadtxt", "numpy.genfromtxt"),
)


def _files() -> Iterator[Call]:
    outside = ["/etc/passwd", "~/.ssh/id_rsa", "/proc/self/environ", "/dev/zero", "../../etc/passwd", "~root/.bashrc"]
    network = ["http://127.0.0.1:9/x", "s3://bucket/x", "file:///etc/passwd", "hf://x/y", "simplecache::http://a/b"]
    for reader in READERS:
        for path in (*outside, *network):
            yield reader, [path], {}
        yield reader, [["x.csv", network[0]]], {}
        yield reader, [["x.csv", outside[0]]], {}
        yield f"{reader}.__call__", [outside[0]], {}
    for target in ("to_csv", "to_json", "to_string", "to_html"):
        yield f"stored.df.{target}", [CANARY], {}
        yield f"stored.df.{target}.__call__", [CANARY], {}
        yield f"pandas.DataFrame.{target}", ["stored.df", CANARY], {}
    for target in ("write_csv", "write_json", "write_ndjson"):
        yield f"stored.frame.{target}", [CANARY], {}
        yield f"stored.frame.{target}.__call__", [], {"file": CANARY}
    for setting in ("storage_options", "credential_provider", "filesystem", "opener"):
        yield "pandas.read_parquet", ["x"], {setting: {"a": "b"}}


def _memory() -> Iterator[Call]:
    interface = {"data": (4096, False), "shape": (8,), "typestr": "|u1", "version": 3}
    for key in ("__array_interface__", "__array_struct__", "__array__", "__dlpack__", "__arrow_c_stream__"):
        yield "dict", [[[key, 1]]], {}
        yield "dict", [], {key: interface}
        yield "dict", [], {key: 1}
        yield "stored.iris.__setitem__", [key, 1], {}
        yield "stored.iris.update", [{key: 1}], {}
        yield "pandas.Series", [[1]], {"index": [key]}
        yield "pandas.Series", [{key: 1}], {}
        yield "stored.df.__setitem__", [key, 1], {}
        yield "stored.df.insert", [0, key, 1], {}
        yield "stored.series.__setitem__", [key, 1], {}
        yield "stored.df.rename", [], {"columns": {"a": key}, "inplace": True}
        yield "stored.df.add_suffix", [key], {}
        yield "pandas.DataFrame", [{key: [1]}], {}
    yield "numpy.array", [interface], {}
    yield "numpy.array", ["stored.iris"], {}
    yield "pandas.Series", [[interface]], {}
    for dtype in ("O", "object", "|O8", ">O", "i4,O", "object_"):
        yield "numpy.array", [[1]], {"dtype": dtype}
        yield "numpy.zeros", [3, dtype], {}
        yield "stored.x.astype", [dtype], {}
        yield "numpy.ones", [3], {"dtype": [("a", dtype)]}
    triple = (["stored.x"], [7, 10**9], [0, 2])
    for kind in ("csr_matrix", "csc_matrix", "csr_array", "csc_array", "csr_matrix.__call__"):
        yield f"scipy.sparse.{kind}", [triple], {}
        yield f"scipy.sparse.{kind}", [], {"arg1": triple}
    yield "stored.x.resize", [10**6], {"refcheck": False}
    yield "numpy.ndarray", [[8]], {"dtype": "O"}
    yield "numpy.ndarray.__call__", [[8]], {}


def _settings() -> Iterator[Call]:
    for made in ("sklearn.pipeline.make_pipeline", "sklearn.cluster.FeatureAgglomeration"):
        yield made, [], {"memory": CANARY}
    yield "stored.model.set_params", [], {"memory": CANARY}
    yield "stored.model.set_params", [], {"step__memory": CANARY}
    yield "sklearn.model_selection.GridSearchCV", ["stored.model", {"step__memory": [CANARY]}], {}
    for vectorizer in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        for given in ("filename", "file"):
            yield f"sklearn.feature_extraction.text.{vectorizer}", [], {"input": given}
    yield "sklearn.model_selection.GridSearchCV", ["stored.model", {"v__input": ["filename"]}], {}
    yield "stored.df.to_string", [], {"float_format": "{0.__class__}"}
    yield "stored.df.to_string", [], {"formatters": ["{0.__class__}", "{0.__class__}"]}
    yield "stored.df.apply", ["sum"], {"engine": "numba"}
    yield "numpy.load", ["x"], {"allow_pickle": True}
    yield "numpy.load", ["x", "w+"], {}
    yield "numpy.loadtxt", ["x"], {"opener": 1}
    yield "pandas.Timestamp", ["2024-01-01"], {"tz": "dateutil//etc/passwd"}
    yield "pandas.date_range", ["2024-01-01"], {"periods": 1, "tz": "dateutil/../../etc/passwd"}
    yield "pandas.Series", [[1]], {"dtype": "datetime64[ns, dateutil//etc/passwd]"}
    for text in (CODE, "@__import__('os').system('id')", "a + b"):
        yield "stored.df.eval", [text], {}
        yield "stored.df.query.__call__", [text], {}
        yield "pandas.eval", [text], {}
        yield "polars.sql_expr", [text], {}
        yield "polars.SQLContext.execute", [text], {}
        yield "stored.frame.sql", [text], {}


def _functions_as_arguments() -> Iterator[Call]:
    for reference in ("stored.x.sum", "stored.df.head", "stored.text.upper", "stored.model.fit", "stored.df.apply"):
        for target in ("list", "sorted", "repr", "numpy.array", "json.dumps", "stored.df.agg", "stored.numbers.append"):
            yield target, [[reference]], {}
        yield "max", [[1]], {"key": reference}
        yield "json.loads", ["{}"], {"object_hook": reference}
        yield "collections.defaultdict", [reference], {}
    for held in ("stored.iris", "stored.words"):
        for target in ("list", "dict", "numpy.array", "pandas.DataFrame", "sorted", "json.dumps", "len", "iter"):
            yield target, [held], {}


SIGNATURES = [
    *("a: this): pass\ndef g(x -> b", "a: str, b: this): return 1\nclass C(x -> b"),
    *(
        "a: os.system -> b",
        "a: os): pass\nx = (1 -> b",
        "a: subprocess.run): pass\nimport os -> b",
        "a: antigravity -> b",
    ),
    *("a: 'os.system' -> b", "a: list['os'] -> b", "a: (lambda: 1) -> b", "a: __import__('os') -> b", "a -> b: this"),
    *("a=__import__('os').system('id') -> b", "*a: os -> b", "a, /, b: os -> c", "a, *, b: os -> c", "**a -> b"),
    *("a -> b) -> os.x: pass #", "a: int if 1 else os -> b", "a: Literal[os] -> b", "a: typing.Any -> b", "a: [ -> b"),
    *(
        "a: X[0 -> b",
        "a: int, -> b: (",
        "a\n: os -> b",
        "a: os\u200b -> b",
        "a: list[os.path] -> b",
        "a: dict[str, os] -> b",
    ),
    *("lm -> b", "config -> b", "signature -> b", "demos -> b", "new_signature -> b", "a: Field(x=os) -> b"),
    *(
        "__class__ -> b",
        "_a -> b",
        "model_config -> b",
        "a: Optional[os] -> b",
        "a: int | os -> b",
        "a: tuple[os, ...] -> b",
    ),
]
_PREDICTOR: dict[str, Any] = {"traces": [], "train": [], "demos": [], "signature": {"instructions": "", "fields": []}}
STATES = [
    *(
        {**_PREDICTOR, "lm": {"model": "openai/x", key: "http://127.0.0.1:9"}}
        for key in ("api_base", "base_url", "url")
    ),
    {**_PREDICTOR, "lm": {"model": "openai/x"}},
    {**_PREDICTOR, "lm": {"class": "os:system", "state": {}}},
    {**_PREDICTOR, "lm": {"engine": {"class": "os:system", "state": {}}}},
    *(
        {**_PREDICTOR, "lm": None, name: value}
        for name, value in {
            "config": {"api_base": "http://127.0.0.1:9"},
            "callbacks": [1],
            "forward": 1,
            "aforward": 1,
            "__class__": 1,
            "history": [],
            "_compiled": True,
            "stage": "x",
        }.items()
    ),
]
MODELS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("openai", {"model": "m", name: "http://127.0.0.1:9"})
        for name in (
            *("base_url", "model_list", "extra_headers", "headers", "organization", "proxy", "client", "extra_body"),
            *(
                "custom_llm_provider",
                "api_version",
                "azure_ad_token",
                "fallbacks",
                "callbacks",
                "engine_state",
                "provider",
            ),
            *("launch_kwargs", "async_engine", "api_type", "mock_response", "vertex_credentials", "http_client"),
        )
    ),
    *(
        (provider, {"model": "m", "api_base": "http://127.0.0.1:9"})
        for provider in (
            "anthropic",
            "azure",
            "bedrock",
            "gemini",
            "vertex",
            "huggingface",
            "databricks",
            "groq",
            "mistral",
        )
    ),
    *(("huggingface", {"model": model}) for model in ("https://127.0.0.1:9/x", "x\ny", "../x", "a b", "x" * 300)),
    *(("openai", {"model": "m", "api_key": key}) for key in ("os.environ/AWS_SECRET", "", " ", ["a"])),
    ("openai", {"model": "m", "api_base": ["http://127.0.0.1:9"]}),
]
assert not set(_SPECIAL) & SPECIAL
