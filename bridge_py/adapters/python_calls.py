"""The worker's side of `pool.python`: calls anything that Python can import, by its name.

An adapter may derive from this one and have tools of its own too.
"""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import platform
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bridge_py.dynamic.allow_list import AllowAll, AllowList
from bridge_py.dynamic.dynamic_call import DynamicCall
from bridge_py.dynamic.frameworks import configure
from bridge_py.dynamic.references import RemoteRef
from bridge_py.dynamic.stored_objects import STORED_BYTES, ObjectStore, Placement
from bridge_py.tools.adapter import BaseAdapter, tool
from bridge_py.tools.context import CallContext, SessionContext
from bridge_py.wire.errors import SnakepitError, UsageError, tool_error

from .dspy_programs import DspyPrograms, DspyTools
from .sqlite_frames import read_sqlite

_LIBRARIES: Final = (
    *("numpy", "pandas", "polars", "pyarrow", "scipy", "scikit-learn", "torch", "tensorflow", "transformers", "dspy"),
    *("matplotlib", "sqlalchemy", "xgboost", "lightgbm"),
)
_LONGEST_DOC: Final = 10_000


class PipelineStep(msgspec.Struct, omit_defaults=True):
    """One step of a pipeline: a call."""

    target: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    store_as: str | None = None


class PythonCalls(DspyTools, BaseAdapter):
    """Calls Python code by its name, within an allow-list, and keeps objects for sessions.

    `allow` names what may be called: "numpy" is a module, "numpy.*" adds the modules below, "pandas:DataFrame.query"
    is one name, and "default" is the usual list. "dspy:openai" gives callers the worker's own key of this provider,
    and "dspy:LM" any model at any address. `roots` are the folders below which files may be read; by default none may.
    `trusted` allows everything, pickles of durable objects too: it is for callers that may run any code. `stored_bytes`
    is how many bytes one session may keep in a worker.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str] = ("default",),
        roots: Sequence[str] = (),
        trusted: bool = False,
        stored_bytes: int = STORED_BYTES,
    ) -> None:
        if not isinstance(stored_bytes, int) or stored_bytes < 0:
            raise UsageError(f"stored_bytes is {stored_bytes!r}; give a number of bytes")
        self.allow_list = AllowAll() if trusted else AllowList(allow, roots)
        self.store = ObjectStore(stored_bytes)
        self.dspy_programs = DspyPrograms(self.store)

    def session_ended(self, session_id: str) -> None:
        self.store.end(session_id)

    def dynamic_call(
        self, context: CallContext, placement: dict[str, Any] | None, *, is_pipeline: bool = False
    ) -> DynamicCall:
        """Make the `DynamicCall` with which a tool names and keeps stored objects. The tool returns its `reply`."""
        placed = None if placement is None else msgspec.convert(placement, Placement)
        return DynamicCall(self.allow_list, self.store, context.session_id, placed, is_pipeline=is_pipeline)

    @tool
    def python_call(
        self,
        context: SessionContext,
        target: str,
        args: list[Any],
        kwargs: dict[str, Any],
        store_as: str | None = None,
        copy_id: int = 0,
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call the object that a target names, or return its value."""
        dynamic = self.dynamic_call(context, placement)
        if store_as is not None:
            dynamic.check_can_keep(store_as)
        result = dynamic.run(target, args, kwargs)
        return dynamic.reply(dynamic.answer(result, store_as, copy_id=copy_id, target=target))

    @tool
    def python_pipeline(
        self, context: SessionContext, steps: list[PipelineStep], placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make several calls, one after the other. The objects that they store last only if all calls succeed."""
        dynamic = self.dynamic_call(context, placement, is_pipeline=True)
        results = []
        for number, step in enumerate(steps, 1):
            try:
                result = dynamic.run(step.target, step.args, step.kwargs)
                results.append(dynamic.answer(result, step.store_as, target=step.target))
            except Exception as error:
                raise _at_step(error, f"step {number} of {len(steps)}, {step.target!r}: ") from error
        return dynamic.reply(results)

    @tool
    def python_store(
        self,
        context: SessionContext,
        name: str,
        value: Any,
        copy_id: int = 0,
        has_copy: bool = False,
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Store a value as an object of the session."""
        dynamic = self.dynamic_call(context, placement)
        # The value that has come may be read-only, and in memory that the host wants back.
        mine = dynamic.argument(copy.deepcopy(value))
        return dynamic.reply(dynamic.keep(name, mine, copy_id=copy_id, has_copy=has_copy, target=f"stored.{name}"))

    @tool
    def python_retrieve(
        self, context: SessionContext, name: str, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the value of a stored object."""
        dynamic = self.dynamic_call(context, placement)
        return dynamic.reply(dynamic.find(name).value)

    @tool
    def python_list_stored(self, context: SessionContext, placement: dict[str, Any] | None = None) -> dict[str, Any]:
        """List the stored objects of the session."""
        dynamic = self.dynamic_call(context, placement)
        return dynamic.reply([entry.ref for entry in dynamic.objects.entries.values()])

    @tool
    def python_delete_stored(
        self, context: SessionContext, name: str, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Delete a stored object."""
        dynamic = self.dynamic_call(context, placement)
        dynamic.remove(name)
        return dynamic.reply(None)

    @tool
    def python_inspect(
        self, context: SessionContext, target: str, placement: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Describe an object: its type, signature, documentation and members."""
        dynamic = self.dynamic_call(context, placement)
        found = dynamic.resolve(target)
        return dynamic.reply(_describe(found))

    @tool
    def python_configure(
        self,
        context: SessionContext,
        framework: str,
        settings: dict[str, Any],
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Set options of a library in this worker."""
        dynamic = self.dynamic_call(context, placement)
        self.allow_list.check_module(framework, framework)
        return dynamic.reply(configure(framework, settings))

    @tool
    def python_read_sqlite(
        self,
        context: SessionContext,
        path: str,
        sql: str,
        params: dict[str, Any],
        store_as: str | None = None,
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Query a SQLite file, and return the result as a frame."""
        dynamic = self.dynamic_call(context, placement)
        self.allow_list.check_module("pandas", "sql")
        self.allow_list.check_path(path, "sql")
        if store_as is not None:
            dynamic.check_can_keep(store_as)
        return dynamic.reply(dynamic.answer(read_sqlite(path, sql, params), store_as, target="sql"))

    @tool
    def python_read_csv(
        self,
        context: SessionContext,
        path: str,
        params: dict[str, Any],
        store_as: str | None = None,
        placement: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Read a CSV file as a frame."""
        from .csv_frames import csv_options

        dynamic = self.dynamic_call(context, placement)
        self.allow_list.check_module("pandas", "csv")
        self.allow_list.check_path(path, "csv")
        if store_as is not None:
            dynamic.check_can_keep(store_as)
        options = {**csv_options(path, params), **params}
        return dynamic.reply(dynamic.answer(dynamic.run("pandas.read_csv", [path], options), store_as, target="csv"))

    @tool
    def python_info(self, context: SessionContext, placement: dict[str, Any] | None = None) -> dict[str, Any]:
        """Describe this worker and the objects that it keeps."""
        dynamic = self.dynamic_call(context, placement)
        objects = None if placement is None else dynamic.objects
        return dynamic.reply(
            {
                "python": platform.python_version(),
                "libraries": _versions(),
                "allow": list(self.allow_list.patterns),
                "roots": list(self.allow_list.roots),
                "trusted": self.allow_list.trusted,
                "stored": len(objects.entries) if objects is not None else self.store.count,
                "stored_bytes": objects.bytes if objects is not None else self.store.bytes,
                "stored_sessions": len(self.store),
                "quota_bytes": self.store.quota,
            }
        )


def _at_step(error: Exception, prefix: str) -> SnakepitError:
    if isinstance(error, SnakepitError):
        try:
            return type(error)(f"{prefix}{error}")
        except TypeError:
            return error
    return tool_error(error, prefix)


def _describe(found: Any) -> dict[str, Any]:
    shape = getattr(found, "shape", None)
    dtype = getattr(found, "dtype", None)
    return {
        "type": f"{type(found).__module__}.{type(found).__qualname__}",
        "callable": callable(found),
        "signature": _signature(found),
        "doc": (inspect.getdoc(found) or "")[:_LONGEST_DOC],
        "members": [name for name in dir(found) if not name.startswith("_")],
        "shape": list(shape) if isinstance(shape, tuple) else None,
        "dtype": str(dtype) if isinstance(shape, tuple) and dtype is not None else None,
    }


def _signature(found: Any) -> str | None:
    try:
        return str(inspect.signature(found))
    except (TypeError, ValueError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


__all__ = ["PipelineStep", "PythonCalls", "RemoteRef"]
