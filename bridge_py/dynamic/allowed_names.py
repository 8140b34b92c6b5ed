"""Tables for `allow_list`: the names that dynamic calls may reach, unless their adapter's options say otherwise."""

from __future__ import annotations

import re
from typing import Final

from . import kinds


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What "default" stands for: the modules of the curated tables, with exactly the names that are listed there.
DEFAULT: Final = tuple(sorted(kinds.MODULES))

#: Builtin functions and classes that may be called.
BUILTINS: Final = words(
    "abs all any ascii bin bool bytearray bytes chr complex dict divmod enumerate float frozenset hash hex int len list"
    " max min next oct ord pow range repr reversed round set slice sorted str sum tuple zip"
)
#: Other builtin classes whose objects may come as values.
VALUES: Final = words("NoneType bool float complex dict_keys dict_values dict_items mappingproxy ellipsis")
#: Packages whose objects may be used whatever else is allowed.
ALWAYS: Final = words("builtins datetime decimal fractions uuid")

#: Special names that objects of listed classes may be asked by.
SPECIAL: Final = frozenset(
    f"__{name}__"
    for name in (
        *("len", "getitem", "setitem", "delitem", "contains"),
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "neg", "abs", "invert"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor"),
    )
)

#: Modules that a pattern with ".*" does not reach; they must be named.
APART: Final = (
    *("numpy.f2py", "numpy.ctypeslib", "numpy.testing", "numpy.distutils", "numpy.lib", "numpy.core", "numpy.compat"),
    *("numpy.rec", "numpy.matlib"),
    *("pandas.io", "pandas.core", "pandas.util", "pandas.compat", "pandas.testing", "pandas.api.extensions"),
    *("pandas.plotting", "pandas.api.interchange", "pandas.conftest", "pandas.tests"),
    *("scipy.io", "scipy.datasets", "scipy.misc", "scipy.conftest"),
    *("sklearn.externals", "sklearn.utils", "sklearn.conftest", "sklearn.tests", "sklearn.experimental"),
    *("polars.io", "polars.plugins", "polars.api", "polars.testing", "polars.sql"),
)

#: Attributes and functions of these names are refused in modules that owners add, unless they are added by name.
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
#: By package: another package of which it partly consists.
COMPANIONS: Final = {"scipy": "uarray"}

#: The names to install missing packages by, where they differ from the import names.
PACKAGES: Final = {"sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python", "yaml": "PyYAML"}
