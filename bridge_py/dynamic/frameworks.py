"""Settings of libraries by name, for `pool.python.configure`. To add a library, add an entry to `KNOWN`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge_py.wire.errors import InvalidCall

from .allowed_names import PACKAGES

Settings = Mapping[str, Any]
# An option whose value is the name of a module is not among them, because pandas would import the module.
_PANDAS: Final = ("display.", "mode.", "compute.", "future.", "styler.format.precision")


def configure(framework: str, settings: Settings) -> Any:
    """Set options of a library; returns the result of its function. Raises `InvalidCall` for unknown names."""
    if framework not in KNOWN:
        raise InvalidCall(f"there is no framework {framework!r} to be configured; there are: {', '.join(KNOWN)}")
    return KNOWN[framework](settings)


def take(framework: str, settings: Settings, known: Mapping[str, Callable[[Any], object]]) -> None:
    """Call the setter of each setting. If one is unknown, set none, and raise `InvalidCall`, which lists all."""
    for name in settings:
        if name not in known:
            raise InvalidCall(f"{framework} has no setting {name!r} here; there are: {', '.join(known)}")
    for name, value in settings.items():
        known[name](value)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InvalidCall(
            f"there is no package {name!r} in the worker: pip install {PACKAGES.get(name, name)}"
        ) from None


def _by_keyword(function: Callable[..., object], name: str) -> Callable[[Any], object]:
    return lambda value: function(**{name: value})


def _numpy(settings: Settings) -> None:
    numpy = _library("numpy")
    shown = ("precision", "threshold", "edgeitems", "linewidth", "suppress", "nanstr", "infstr", "sign", "floatmode")
    errors = ("all", "divide", "over", "under", "invalid")
    known = {name: _by_keyword(numpy.set_printoptions, name) for name in shown}
    known |= {name: _by_keyword(numpy.seterr, name) for name in errors}
    take("numpy", settings, known | {"seed": numpy.random.seed})


def _pandas(settings: Settings) -> None:
    pandas = _library("pandas")
    for name in settings:
        if not name.startswith(_PANDAS):
            raise InvalidCall(f"pandas has no setting {name!r} here; there are those of its options with {_PANDAS}")
        pandas.get_option(name)  # raises for a name that is no option
    for name, value in settings.items():
        pandas.set_option(name, value)


def _sklearn(settings: Settings) -> None:
    sklearn = _library("sklearn")
    known = sklearn.get_config()
    take("sklearn", settings, {name: _by_keyword(sklearn.set_config, name) for name in known})


def _torch(settings: Settings) -> None:
    torch = _library("torch")
    take(
        "torch",
        settings,
        {
            "threads": torch.set_num_threads,
            "interop_threads": torch.set_num_interop_threads,
            "seed": torch.manual_seed,
            "deterministic": torch.use_deterministic_algorithms,
        },
    )


KNOWN: Final[dict[str, Callable[[Settings], Any]]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "sklearn": _sklearn,
    "torch": _torch,
}
