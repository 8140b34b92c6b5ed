"""What users import is pinned here: a name is added, or removed, knowingly."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

NAMES = {
    "snakepit_trio": """
        AccessDenied AccessRules Adapter BridgedState CallTimeout Change Chunks Client CodecError Context
        DecodeError EncodeError Event GrpcBridge GrpcPython HistoryEntry HostCall HostToolError
        InvalidArguments InvalidCall InvalidValue Launcher Limits LocalState MemoryStore NotAllowed
        Optimization OutOfResources Pool PoolClosed PoolConfig PoolDeadlock PoolError PoolHealth
        PoolNotReady PoolOptions PoolSaturated PoolStats ProgramNotFound ProtocolError PythonAPI
        QuotaExceeded Quotas RecyclePolicy RegisteredTool RemoteError RemoteRef Results RetryPolicy Session
        SessionError SessionHandle SessionInfo SessionNotFound SessionStore SessionView Site SnakepitError
        StateProvider StdioJson StdioMsgpack Step StoreStats StoredObjectLost StoredObjectNotFound Tainted
        ToolError ToolRegistry ToolSpec UnknownTool Update UsageError Variable VariableError VariableExists
        VariableNotFound Verbatim VersionConflict Watcher WorkerBusy WorkerCrashed WorkerError WorkerInfo
        WorkerStartError WorkerState WrongCallKind force_cleanup_all open_client open_pool register_codec
        run_as_script session_helpers variables
    """,
    "snakepit_trio.errors": """
        AccessDenied OutOfResources PoolClosed PoolDeadlock PoolError PoolNotReady PoolSaturated
        ProgramNotFound QuotaExceeded SessionError SessionNotFound StoredObjectLost StoredObjectNotFound
        Tainted VariableError VariableExists VariableNotFound VersionConflict WorkerBusy WorkerCrashed
        WorkerError WorkerFailure WorkerStartError
    """,
    "snakepit_trio.launchers": """
        Local
    """,
    "snakepit_trio.telemetry": """
        Event Events
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
        SnakepitError ToolCancelled UsageError register_codec tool
    """,
    "bridge_py.adapters.python_calls": """
        PythonCalls RemoteRef Step
    """,
}
MODULES = {
    "snakepit_trio": "errors launchers state telemetry testing variables",
    "snakepit_trio.state": "checks exports provider quotas session store view watching",
    "bridge_py": "adapters buffers contract dynamic execution host link main tools wire",
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
