"""Tables for `allow_list`: the names that dynamic calls may reach, unless their adapter's options say otherwise."""

from __future__ import annotations

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Modules by name: exactly these; ".*" adds all modules below. Names that the tables below refuse stay refused in them.
DEFAULT: Final = (
    *("math", "cmath", "statistics", "decimal", "fractions", "datetime", "collections", "itertools", "json", "re"),
    "random",
    *(f"numpy{part}" for part in ("", ".linalg", ".fft", ".random", ".ma", ".char", ".strings", ".rec", ".emath")),
    *("numpy.polynomial.*", "numpy.exceptions", "numpy.dtypes"),
    *(
        "pandas",
        "pandas.api",
        "pandas.api.types",
        "pandas.tseries",
        "pandas.tseries.offsets",
        "pandas.arrays",
        "pandas.errors",
    ),
    "scipy",
    *(
        f"scipy.{part}"
        for part in (
            *("cluster", "cluster.hierarchy", "cluster.vq", "constants", "fft", "integrate", "interpolate", "linalg"),
            *("ndimage", "optimize", "signal", "signal.windows", "sparse", "sparse.csgraph", "sparse.linalg"),
            *("spatial", "spatial.distance", "special", "stats", "stats.qmc", "stats.mstats"),
        )
    ),
    "sklearn",
    *(
        f"sklearn.{part}"
        for part in (
            *("base", "calibration", "cluster", "compose", "covariance", "cross_decomposition", "datasets"),
            *("decomposition", "discriminant_analysis", "dummy", "ensemble", "feature_extraction"),
            *("feature_extraction.text", "feature_selection", "gaussian_process", "gaussian_process.kernels", "impute"),
            *("inspection", "isotonic", "kernel_approximation", "kernel_ridge", "linear_model", "manifold", "metrics"),
            *("metrics.cluster", "metrics.pairwise", "mixture", "model_selection", "multiclass", "multioutput"),
            *("naive_bayes", "neighbors", "neural_network", "pipeline", "preprocessing", "random_projection"),
            *("semi_supervised", "svm", "tree"),
        )
    ),
    *("polars", "polars.selectors"),
)

#: Builtin functions and classes that may be called.
BUILTINS: Final = _words(
    "abs all any ascii bin bool bytearray bytes chr complex dict divmod enumerate float frozenset hash hex int len list"
    " max min next oct ord pow range repr reversed round set slice sorted str sum tuple zip"
)
#: Builtin classes whose objects may be kept, and whose attributes may be used.
VALUES: Final = _words(
    "NoneType bool int float complex str bytes bytearray list tuple dict set frozenset range slice enumerate zip"
    " reversed dict_keys dict_values dict_items mappingproxy ellipsis"
)
#: Builtin classes whose objects may be kept and used up, but have no useful attributes.
OPAQUE: Final = _words(
    "generator list_iterator tuple_iterator dict_keyiterator dict_valueiterator dict_itemiterator set_iterator"
    " range_iterator str_ascii_iterator str_iterator bytes_iterator list_reverseiterator memoryview callable_iterator"
)

#: Special names that may be used.
SPECIAL: Final = frozenset(
    f"__{name}__"
    for name in (
        *("call", "version", "len", "getitem", "setitem", "delitem", "contains"),
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "neg", "abs", "invert"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor"),
    )
)

#: Modules that a pattern with ".*" does not reach; they must be named.
APART: Final = (
    *("numpy.f2py", "numpy.ctypeslib", "numpy.testing", "numpy.distutils", "numpy.lib", "numpy.core", "numpy.compat"),
    *("pandas.io", "pandas.core", "pandas.util", "pandas.compat", "pandas.testing", "pandas.api.extensions"),
    *("pandas.plotting", "pandas.api.interchange", "pandas.conftest", "pandas.tests"),
    *("scipy.io", "scipy.datasets", "scipy.misc", "scipy.conftest"),
    *("sklearn.externals", "sklearn.utils", "sklearn.conftest", "sklearn.tests", "sklearn.experimental"),
    *("polars.io", "polars.plugins", "polars.api", "polars.testing", "polars.sql"),
)

#: Attributes and functions of these names are refused wherever they are found.
DENIED: Final = re.compile(
    "|".join(
        (
            # These run text, or code that text names.
            "eval|exec|query|namedtuple|style|plot|hist|boxplot|bmat|map_batches|map_elements|map_groups|map_rows",
            "format|format_map|rv_continuous|rv_discrete|sql|set_option|reset_option|option_context|set_eng_float_format|register_.*",
            # Attributes of the interpreter's own objects.
            "gi_frame|gi_code|gi_yieldfrom|cr_frame|cr_code|cr_await|cr_origin|ag_frame|ag_code|ag_await|mro",
            "f_globals|f_locals|f_builtins|f_back|f_code|f_trace|tb_frame|tb_next|with_traceback",
            "func_(globals|code|closure|defaults|dict)|co_(code|consts|names|varnames|freevars|cellvars)",
            "im_(func|self|class)",
            # Raw memory.
            "ctypes|cffi|as_strided|LowLevelCallable|memmap|open_memmap|byte_bounds",
            # Pickles, databases, the network, other programs.
            "(read|to)_(pickle|hdf|gbq|clipboard|sql|sql_query|sql_table|iceberg|xml)|HDFStore|read_database.*",
            "dump|(de)?serialize|fetch_.*|DataSource|read_delta|scan_delta|read_iceberg|scan_iceberg|scan_pyarrow_.*",
            "show_graph|show_versions|test|SQLContext|Config|plugins|Catalog|CredentialProvider.*|remote",
            # These write files.
            "get_data_home|clear_data_home|tofile|save|savez|savez_compressed|savetxt|save_npz|savemat|ExcelWriter|dump_svmlight_file",
            "export_graphviz|write_(?!csv$|json$|ndjson$).*|sink_.*",
            "to_(excel|parquet|feather|orc|stata|latex|markdown)",
        )
    )
)
#: Functions that write to a file if they are given one, and return text otherwise.
WRITERS: Final = frozenset(
    {"to_csv", "to_json", "to_string", "to_html", "write_csv", "write_json", "write_ndjson", "info"}
)
#: Functions that may be given names of other functions, which they call. `DISPATCHERS` also take names inside of lists
#: and arrays, `AGGREGATORS` in one parameter, which is not among the first three, `NAME_TAKERS` as the argument itself.
DISPATCHERS: Final = frozenset({"apply", "agg", "aggregate", "transform"})
AGGREGATORS: Final = frozenset({"pivot_table", "crosstab"})
NAME_TAKERS: Final = frozenset({"pipe", "map", "applymap", "combine", "filter"})
#: Functions that read files.
READERS: Final = re.compile(r"read_.*|scan_.*|load.*|genfromtxt|fromfile|fromregex|ExcelFile")

#: By package: another package of which it partly consists.
COMPANIONS: Final = {"scipy": "uarray"}

#: The names to install missing packages by, where they differ from the import names.
PACKAGES: Final = {"sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python", "yaml": "PyYAML"}
