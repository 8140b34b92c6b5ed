"""An extension of Sphinx: in the pages of the reference, blocks `{names} module` list public names, one a line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from sphinx.pycode import ModuleAnalyzer

FOLDER: Final = Path(__file__).parent / "reference"
#: The modules whose public names the reference has. A name that several of them have is in the first one's pages.
MODULES: Final = (
    "snakepit_trio",
    "bridge_py",
    "snakepit_trio.variables",
    "snakepit_trio.errors",
    "snakepit_trio.telemetry",
    "snakepit_trio.launchers",
    "snakepit_trio.testing",
    "snakepit_trio.testing.conformance",
    "snakepit_trio.testing.strategies",
    "snakepit_trio.testing.machines",
    "bridge_py.adapters.python_calls",
)
#: Modules that are named by their users: their classes are public.
NAMED: Final = (
    "snakepit_trio.state.sqlite",
    "snakepit_trio.state.redis",
    "snakepit_trio.state.shared",
    "snakepit_trio.state.backend",
    "snakepit_trio.telemetry.opentelemetry",
)
#: Classes that programs do not import: public names give objects of them.
REACHED: Final = (
    "snakepit_trio._pool.worker_info.Workers",
    "snakepit_trio._serving.http.HttpApp",
    "snakepit_trio._serving.mcp_app.McpApp",
    "snakepit_trio._serving.metrics_app.MetricsApp",
    "snakepit_trio._dashboard.app.DashboardApp",
    "snakepit_trio.telemetry.prometheus.PoolMetrics",
    "bridge_py.host.host_tools.HostTool",
)
PACKAGES: Final = ("snakepit_trio", "bridge_py")
_BLOCK: Final = re.compile(r"^```\{names\} (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def public() -> list[str]:
    """All public names, with their modules; each thing once. Modules that have pages of their own are left out."""
    found: dict[int, str] = {}
    for name in [*MODULES, *filter(importlib.util.find_spec, NAMED)]:
        module = importlib.import_module(name)
        for each in getattr(module, "__all__", None) or _classes(module):
            if f"{name}.{each}" not in MODULES:
                found.setdefault(id(getattr(module, each)), f"{name}.{each}")
    return sorted([*found.values(), *REACHED])


def _classes(module: ModuleType) -> list[str]:
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return [name for name in own if inspect.isclass(vars(module)[name]) and not name.startswith("_")]


def listed(text: str) -> list[str]:
    """The names that the blocks of a page list; `*` stands for all names that no page lists."""
    return [f"{module}.{name}" for module, names in _BLOCK.findall(text) for name in names.split() if name != "*"]


def further() -> list[str]:
    """The public names that no page lists."""
    pages = [name for page in sorted(FOLDER.glob("*.md")) for name in listed(page.read_text())]
    return [name for name in public() if name not in pages]


def directives(name: str) -> str:
    """What has Sphinx read the docstring of a name: of a module, those of its public names."""
    module, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(module), last)
    if inspect.ismodule(thing):
        return "\n".join(f".. autofunction:: {module}::{last}.{each}\n" for each in thing.__all__)
    if inspect.isclass(thing):
        inherits = "" if issubclass(thing, (BaseException, dict, Enum)) else "   :inherited-members:\n"
        made = "()" if name in REACHED else ""  # not by programs
        return f".. autoclass:: {name}{made}\n   :members:\n{inherits}"
    kind = "autofunction" if inspect.isroutine(thing) else "autodata"
    return f".. {kind}:: {name}\n"


def _expanded(block: re.Match[str]) -> str:
    names = further() if block[2].split() == ["*"] else [f"{block[1]}.{name}" for name in block[2].split()]
    return "```{eval-rst}\n" + "\n".join(map(directives, names)) + "```" if names else "None at present."


def _expand(_app: object, _page: str, source: list[str]) -> None:
    source[0] = _BLOCK.sub(_expanded, source[0])


def _read_sources(_app: object) -> None:
    """Tell autodoc what the sources of public classes say of attributes, in comments that begin with `#:`.

    Public classes name the public module as theirs (`publish`), and autodoc would read that module's source alone.
    """
    public()  # loads the modules: their names are loaded only when they are used
    for module in [module for name, module in sorted(sys.modules.items()) if name.startswith(PACKAGES)]:
        for name, thing in vars(module).items():
            named = getattr(thing, "__module__", None)
            if inspect.isclass(thing) and named in MODULES and named != module.__name__:
                there, here = ModuleAnalyzer.for_module(module.__name__), ModuleAnalyzer.for_module(named)
                if f"class {name}" in there.code:
                    there.analyze()
                    here.analyze()
                    here.attr_docs.update({key: text for key, text in there.attr_docs.items() if key[0] == name})
                    here.tagorder.update({key: at for key, at in there.tagorder.items() if key.startswith(f"{name}.")})


def _without_paths(*told: Any) -> tuple[str | None, str | None]:
    """The interpreter that builds the pages is not what the reader has."""
    *_, signature, returns = told
    return (signature and signature.replace(repr(sys.executable), "sys.executable"), returns)


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("builder-inited", _read_sources)
    app.connect("source-read", _expand)
    app.connect("autodoc-process-signature", _without_paths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
