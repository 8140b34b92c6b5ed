"""What users import is pinned here: a name is added, or removed, knowingly."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import subprocess
import sys
import traceback
import typing
from typing import Any

import attrs
import msgspec
import pytest

import bridge_py
import snakepit_trio as snakepit
from bridge_py.dynamic.allow_list import AllowList
from snakepit_trio.testing.machines import TrioMachine

NAMES = {
    "snakepit_trio": """
        AccessDenied AccessRules Adapter BridgedState CallCancelled CallInfo CallTimeout Calls Change Chunks Client
        CodecError Context
        DebuggerQuit DecodeError EncodeError Event EventStream GrpcBridge GrpcPython HashRing HistoryEntry
        HostCall HostToolError InvalidArguments InvalidCall InvalidValue Launcher Limits LocalState MemoryStore
        NotAllowed Optimization OutOfResources ParameterSpec Pool PoolClosed PoolConfig PoolDeadlock PoolError
        PoolHealth PoolNotReady PoolOptions PoolSaturated PoolStats ProgramNotFound Progress ProtocolError PythonAPI
        QuotaExceeded Quotas RecyclePolicy RegisteredTool RemoteError RemoteRef ResourcesNotOffered
        Results RetryPolicy Session
        SessionError SessionHandle SessionInfo SessionNotFound SessionStore SessionView Site SnakepitError
        StaleEpoch StateProvider StdioJson StdioMsgpack Step StoreCorrupt StoreStats StoreUnavailable StoredObjectLost
        StoredObjectNotFound Tainted
        ToolError ToolRegistry ToolSpec UnknownTool Update UsageError Variable VariableError VariableExists
        VariableNotFound Verbatim VersionConflict Watcher WorkerBusy WorkerCrashed WorkerError WorkerInfo
        WorkerOptions WorkerStartError WorkerState WrongCallKind current_context force_cleanup_all open_client open_pool
        register_codec run_as_script session_helpers variables
    """,
    "snakepit_trio.errors": """
        AccessDenied CallCancelled OutOfResources PoolClosed PoolDeadlock PoolError PoolNotReady PoolSaturated
        ProgramNotFound QuotaExceeded ResourcesNotOffered SessionError SessionNotFound StaleEpoch StoreCorrupt
        StoreUnavailable StoredObjectLost
        StoredObjectNotFound Tainted VariableError VariableExists VariableNotFound VersionConflict WorkerBusy
        WorkerCrashed WorkerError WorkerFailure WorkerStartError
    """,
    "snakepit_trio.launchers": """
        GivenCertificates Local Ray
    """,
    "snakepit_trio.state.redis": """
        RedisStore
    """,
    "snakepit_trio.telemetry": """
        Event EventKind EventStream Events Timing TraceContext attach correlated correlation_id detach events
        trace_headers
    """,
    "snakepit_trio.telemetry.opentelemetry": """
        Instrumentation instrument
    """,
    "snakepit_trio.testing": """
        BatchFault Cut Die Fault Faults Garbage Hanging Happened IgnoreCancel InMemory RefuseStart Silence
        Slow Split conformance run
    """,
    "snakepit_trio.testing.conformance": """
        Check Contract LeftOut Report adapter launcher store
    """,
    "snakepit_trio.testing.machines": """
        PoolMachine TrioMachine initialize invariant rule
    """,
    "snakepit_trio.testing.strategies": """
        Call Command Concurrently Execute Outcome Stream TypedValue arrays bad_values calls carry_out
        commands equal fault_plans faults plain_values tool_specs values variable_types variables
        wrong_calls
    """,
    "snakepit_trio.variables": """
        VariableType create_variable get_type infer_type supported_types valid validate
    """,
    "snakepit_trio._pool.programs": """
        execute_program_command
    """,
    "bridge_py": """
        AsyncSessionContext BaseAdapter CodecError HostToolError InvalidArguments SessionContext
        SnakepitError ToolCancelled UsageError correlation_id current_context register_codec tool trace_headers
    """,
    "bridge_py.adapters.python_calls": """
        PipelineStep PythonCalls RemoteRef
    """,
}
MODULES = {
    "snakepit_trio": "errors launchers state telemetry testing variables",
    "snakepit_trio.state": (
        "backend checks copies epochs exports fences hash_ring parts provider quotas redis session shared sqlite"
        " sqlite_file sqlite_steps store view watching write_groups"
    ),
    "bridge_py": "adapters buffers command_line contract dynamic execution host http2 link main system template tls"
    " tools version wire",
}


@pytest.mark.parametrize("module", NAMES)
def test_these_names_are_exported_and_no_others(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert exported == sorted(set(exported))
    assert exported == sorted(NAMES[module].split())


@pytest.mark.parametrize("module", NAMES)
def test_each_exported_name_can_be_imported(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in found.__all__ if getattr(found, name, None) is None] == []


@pytest.mark.parametrize("package", MODULES)
def test_these_modules_have_no_underscore_and_no_others(package: str) -> None:
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    assert sorted(each.name for each in found if not each.name.startswith("_")) == MODULES[package].split()


# `__module__`.

PACKAGES = [
    "bridge_py",
    "snakepit_trio",
    "snakepit_trio.launchers",
    "snakepit_trio.state.redis",
    "snakepit_trio.testing",
    "snakepit_trio.testing.conformance",
    "snakepit_trio.testing.machines",
    "snakepit_trio.testing.strategies",
]
#: Modules are what they are, and a union of classes has no module of its own.
WITHOUT = {"snakepit_trio.session_helpers", "snakepit_trio.variables", "snakepit_trio.testing.conformance"} | {
    "snakepit_trio.testing.strategies.Command"
}


def published() -> list[tuple[str, str]]:
    names = [(package, name) for package in PACKAGES for name in NAMES[package].split()]
    return [(package, name) for package, name in names if f"{package}.{name}" not in WITHOUT]


@pytest.mark.parametrize(("package", "name"), published())
def test_a_name_says_where_it_is_imported_from(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    # Errors that a worker knows are the same there, where snakepit_trio may be missing.
    home = "bridge_py" if name in bridge_py.__all__ else package
    assert (value.__module__, value.__qualname__) == (home, name)
    assert pickle.loads(pickle.dumps(value)) is value


def classes() -> list[type]:
    found = [getattr(importlib.import_module(package), name) for package, name in published()]
    # The hints of Hypothesis' own machine, from which two derive, cannot be resolved.
    return [kind for kind in found if isinstance(kind, type) and not issubclass(kind, TrioMachine)]


@pytest.mark.parametrize("kind", classes())
def test_hints_of_a_public_class_can_be_resolved(kind: type) -> None:
    """They are written with the names of the file that defines the class, which its package does not have."""
    hints = typing.get_type_hints(kind, include_extras=True)
    assert not any(isinstance(hint, str) for hint in hints.values())
    if attrs.has(kind):
        attrs.resolve_types(kind, include_extras=True)


@pytest.mark.parametrize("kind", [snakepit.Limits, snakepit.ToolSpec, snakepit.Variable, snakepit.WorkerInfo])
def test_msgspec_knows_the_fields_of_a_public_class(kind: Any) -> None:
    schema = msgspec.json.schema(kind, schema_hook=lambda _: {})
    assert schema["$defs"][kind.__name__]["properties"].keys() == set(kind.__annotations__)


def test_a_traceback_has_the_public_name() -> None:
    assert traceback.format_exception_only(snakepit.PoolClosed("x")) == ["snakepit_trio.PoolClosed: x\n"]
    assert traceback.format_exception_only(snakepit.UsageError("x")) == ["bridge_py.UsageError: x\n"]


def test_a_name_that_is_loaded_late_says_so_too() -> None:
    code = (
        "import sys, snakepit_trio as s; assert 'snakepit_trio._contract.client' not in sys.modules;"
        "print(s.Client.__module__, s.open_client.__module__)"
    )
    assert _python(code) == "snakepit_trio snakepit_trio"


def test_a_worker_alone_has_the_same_names() -> None:
    code = "import sys, bridge_py as b; assert 'snakepit_trio' not in sys.modules; print(b.UsageError.__module__)"
    assert _python(code) == "bridge_py"


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("allowed", "target", "may"),
    [
        ("snakepit_trio", "snakepit_trio.PoolClosed", True),
        ("snakepit_trio", "snakepit_trio.Variable", False),
        ("snakepit_trio", "snakepit_trio.ToolError", False),
        ("bridge_py", "bridge_py.UsageError", True),
        ("bridge_py.wire.errors", "bridge_py.wire.errors.ToolError", True),
    ],
)
def test_dynamic_calls_reach_what_a_class_is_and_not_what_it_says(allowed: str, target: str, may: bool) -> None:
    """A package that is allowed does not let in classes of another one because it exports them."""
    allow_list = AllowList([allowed])
    module, _, name = target.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if may:
        allow_list.check_object(found, name, target)
        return
    with pytest.raises(snakepit.NotAllowed, match=r"comes from bridge_py\.wire\."):
        allow_list.check_object(found, name, target)
