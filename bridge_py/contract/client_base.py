"""What all clients of the wire contract have: one method for each RPC, with our own values."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final, TypeVar

from bridge_py.wire.any_values import LargeValues
from bridge_py.wire.errors import RemoteError, SnakepitError, ToolError, error_of
from bridge_py.wire.messages.snakepit import bridge as messages
from bridge_py.wire.readable import readable
from bridge_py.wire.specs import ToolSpec
from bridge_py.wire.variable import HistoryEntry, Variable

from . import values
from .statuses import failure_of

NOTHING: Final[Mapping[str, Any]] = {}

R = TypeVar("R")


class ClientBase:
    """Every RPC of the contract as a method. A subclass makes the RPCs: it defines `_call` and `_stream`.

    All methods raise the error that the peer's status stands for: `SessionNotFound`, `VariableNotFound`,
    `InvalidValue`, `VersionConflict`, and so on. Any other status is a `RemoteError`. Its `status` is "UNAVAILABLE" if
    the peer cannot be reached; the next call tries again to reach it. Requests that the peer has not processed are made
    again, until the timeout: those that it has refused (REFUSED_STREAM), and those after which it has left (GOAWAY).
    """

    allow_pickle = False

    async def _call(self, rpc: str, request: Any, response: type[R], timeout: float | None = None) -> R:
        raise NotImplementedError

    def _stream(self, rpc: str, requests: Any, response: type[R]) -> AsyncGenerator[R, None]:
        raise NotImplementedError

    async def _form(self) -> LargeValues:
        """How large arrays go to the peer. A peer that has not answered yet is asked."""
        raise NotImplementedError

    async def _form_of(self, contents: Iterable[Any]) -> LargeValues:
        is_needed = any(hasattr(each, "__array__") or isinstance(each, (list, tuple)) for each in contents)
        return await self._form() if is_needed else "json"

    # The peer and its sessions.

    async def ping(self, message: str = "ping", *, timeout: float | None = None) -> str:
        """Check that the peer can be reached; returns the message of its answer."""
        found = await self._call("Ping", messages.PingRequest(message=message), messages.PingResponse, timeout)
        return found.message

    async def initialize_session(
        self, session_id: str, metadata: Mapping[str, str] = NOTHING
    ) -> messages.InitializeSessionResponse:
        """Open a session, or join it; the answer has the host's tools. Ours has no variables: they may be large."""
        request = messages.InitializeSessionRequest(session_id=session_id, metadata=dict(metadata))
        found = await self._call("InitializeSession", request, messages.InitializeSessionResponse)
        _check(found)
        return found

    async def cleanup_session(self, session_id: str, *, force: bool = False) -> int:
        """End a session; returns how many resources it held."""
        request = messages.CleanupSessionRequest(session_id=session_id, force=force)
        return (await self._call("CleanupSession", request, messages.CleanupSessionResponse)).resources_cleaned

    async def get_session(self, session_id: str) -> messages.GetSessionResponse:
        """Describe a session: its metadata, when it was created, and how many variables and tools it has."""
        return await self._call(
            "GetSession", messages.GetSessionRequest(session_id=session_id), messages.GetSessionResponse
        )

    async def heartbeat(self, session_id: str) -> bool:
        """Keep a session alive; returns whether the session is still valid."""
        request = messages.HeartbeatRequest(session_id=session_id, client_time=values.timestamp(time.time()))
        return (await self._call("Heartbeat", request, messages.HeartbeatResponse)).session_valid

    # Variables.

    async def register_variable(
        self,
        session_id: str,
        name: str,
        type: str,
        value: Any,
        *,
        constraints: Mapping[str, Any] = NOTHING,
        metadata: Mapping[str, str] = NOTHING,
    ) -> str:
        """Add a variable; returns its id."""
        packed, binary = values.typed_any(value, type, large_values=await self._form_of([value]))
        request = messages.RegisterVariableRequest(
            session_id=session_id,
            name=name,
            type=type,
            initial_value=packed,
            initial_binary_value=binary,
            constraints_json=json.dumps(dict(constraints)) if constraints else "",
            metadata=dict(metadata),
        )
        found = await self._call("RegisterVariable", request, messages.RegisterVariableResponse)
        _check(found)
        return found.variable_id

    async def get_variable(self, session_id: str, identifier: str) -> Variable:
        """Return a variable."""
        request = messages.GetVariableRequest(session_id=session_id, variable_identifier=identifier)
        found = await self._call("GetVariable", request, messages.GetVariableResponse)
        return self._variable(found.variable)

    async def get_variables(self, session_id: str, identifiers: Iterable[str]) -> tuple[dict[str, Variable], list[str]]:
        """Return the variables that exist, by the identifiers that were asked for, and the missing identifiers."""
        request = messages.BatchGetVariablesRequest(session_id=session_id, variable_identifiers=list(identifiers))
        found = await self._call("GetVariables", request, messages.BatchGetVariablesResponse)
        return {name: self._variable(each) for name, each in found.variables.items()}, list(found.missing_variables)

    async def list_variables(self, session_id: str, pattern: str = "*") -> list[Variable]:
        """Return the variables whose names match a pattern."""
        request = messages.ListVariablesRequest(session_id=session_id, pattern=pattern)
        found = await self._call("ListVariables", request, messages.ListVariablesResponse)
        return [self._variable(each) for each in found.variables]

    async def set_variable(
        self,
        session_id: str,
        identifier: str,
        value: Any,
        *,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = NOTHING,
    ) -> int:
        """Set the value of a variable; returns its new version."""
        packed, binary = values.to_variable_any(value, large_values=await self._form_of([value]))
        request = messages.SetVariableRequest(
            session_id=session_id,
            variable_identifier=identifier,
            value=packed,
            binary_value=binary,
            metadata=dict(metadata),
            expected_version=expected_version or 0,
        )
        found = await self._call("SetVariable", request, messages.SetVariableResponse)
        _check(found)
        return found.new_version

    async def set_variables(
        self,
        session_id: str,
        updates: Mapping[str, Any],
        *,
        atomic: bool = False,
        metadata: Mapping[str, str] = NOTHING,
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Set several values; returns the new versions and the error messages, each by name."""
        form = await self._form_of(updates.values())
        packed = {name: values.to_variable_any(value, large_values=form) for name, value in updates.items()}
        request = messages.BatchSetVariablesRequest(
            session_id=session_id,
            updates={name: value for name, (value, _) in packed.items()},
            binary_updates={name: binary for name, (_, binary) in packed.items() if binary},
            metadata=dict(metadata),
            atomic=atomic,
        )
        found = await self._call("SetVariables", request, messages.BatchSetVariablesResponse)
        return dict(found.new_versions), dict(found.errors)

    async def delete_variable(self, session_id: str, identifier: str) -> None:
        """Remove a variable."""
        request = messages.DeleteVariableRequest(session_id=session_id, variable_identifier=identifier)
        _check(await self._call("DeleteVariable", request, messages.DeleteVariableResponse))

    async def add_dependency(self, session_id: str, identifier: str, on: str, kind: str = "data") -> None:
        """Record that a variable depends on another one, `on`."""
        request = messages.AddDependencyRequest(
            session_id=session_id, from_variable=identifier, to_variable=on, dependency_type=kind
        )
        _check(await self._call("AddDependency", request, messages.AddDependencyResponse))

    async def start_optimization(
        self, session_id: str, identifier: str, optimizer_id: str, config: Mapping[str, str] = NOTHING
    ) -> str:
        """Mark a variable as being optimized; returns the id of the optimization."""
        request = messages.StartOptimizationRequest(
            session_id=session_id,
            variable_identifier=identifier,
            optimizer_id=optimizer_id,
            optimizer_config=dict(config),
        )
        found = await self._call("StartOptimization", request, messages.StartOptimizationResponse)
        _check(found)
        return found.optimization_id

    async def stop_optimization(self, session_id: str, identifier: str, *, force: bool = False) -> Any:
        """Remove the mark that a variable is being optimized; returns the variable's value."""
        request = messages.StopOptimizationRequest(session_id=session_id, variable_identifier=identifier, force=force)
        found = await self._call("StopOptimization", request, messages.StopOptimizationResponse)
        return values.value_of(found.final_value, b"")

    async def get_variable_history(
        self, session_id: str, identifier: str, limit: int | None = None
    ) -> list[HistoryEntry]:
        """Return the known versions of a variable, latest first."""
        request = messages.GetVariableHistoryRequest(
            session_id=session_id, variable_identifier=identifier, limit=limit or 0
        )
        found = await self._call("GetVariableHistory", request, messages.GetVariableHistoryResponse)
        return [values.history_of(entry) for entry in found.entries]

    async def rollback_variable(self, session_id: str, identifier: str, version: int) -> Variable:
        """Set a variable to the value that it had at `version`; returns the variable."""
        request = messages.RollbackVariableRequest(
            session_id=session_id, variable_identifier=identifier, target_version=version
        )
        found = await self._call("RollbackVariable", request, messages.RollbackVariableResponse)
        _check(found)
        return self._variable(found.variable)

    def watch_variables(
        self, session_id: str, identifiers: Iterable[str] = (), *, initial: bool = True
    ) -> AsyncGenerator[messages.VariableUpdate, None]:
        """Yield the changes of variables as they happen; without identifiers, of all variables.

        Close the generator to stop.
        """
        request = messages.WatchVariablesRequest(
            session_id=session_id, variable_identifiers=list(identifiers), include_initial_values=initial
        )
        return self._stream("WatchVariables", [request], messages.VariableUpdate)

    def _variable(self, message: messages.Variable | None) -> Variable:
        return values.variable_of(message or messages.Variable(), allow_pickle=self.allow_pickle)

    # Tools.

    async def execute_tool(
        self,
        name: str,
        args: Mapping[str, Any] = NOTHING,
        *,
        session_id: str = "",
        metadata: Mapping[str, str] = NOTHING,
        timeout: float | None = None,
    ) -> Any:
        """Run a tool, and return its result. Raises `ToolError` if the tool failed."""
        form = await self._form_of(args.values())
        request = _tool_request(name, args, session_id, metadata, form, stream=False)
        found = await self._call("ExecuteTool", request, messages.ExecuteToolResponse, timeout)
        return self.read_answer(found, found.binary_result)

    async def execute_streaming_tool(
        self,
        name: str,
        args: Mapping[str, Any] = NOTHING,
        *,
        session_id: str = "",
        metadata: Mapping[str, str] = NOTHING,
    ) -> AsyncGenerator[Any, None]:
        """Run a streaming tool; yields its chunks, up to the first one that is marked as final.

        Close the generator to stop the tool. Raises `ToolError` if the tool failed.
        """
        form = await self._form_of(args.values())
        request = _tool_request(name, args, session_id, metadata, form, stream=True)
        stream = self._stream("ExecuteStreamingTool", [request], messages.ToolChunk)
        async with contextlib.aclosing(stream) as chunks:
            try:
                async for chunk in chunks:
                    if chunk.data:
                        yield values.chunk_of(chunk.data)  # noqa: ASYNC119 - a caller that leaves early closes it
                    if chunk.is_final:
                        return
            except RemoteError as error:
                raise _stream_failure(error) from None

    async def register_tools(self, session_id: str, tools: Iterable[ToolSpec], worker_id: str) -> dict[str, str]:
        """Tell the peer which tools a worker has; returns the ids that the tools get."""
        request = messages.RegisterToolsRequest(
            session_id=session_id,
            tools=[values.registration_message(tool) for tool in tools],
            worker_id=worker_id,
        )
        found = await self._call("RegisterTools", request, messages.RegisterToolsResponse)
        _check(found)
        return dict(found.tool_ids)

    async def get_exposed_tools(self, session_id: str) -> list[ToolSpec]:
        """Return the host tools that the session may call."""
        request = messages.GetExposedElixirToolsRequest(session_id=session_id)
        found = await self._call("GetExposedElixirTools", request, messages.GetExposedElixirToolsResponse)
        return [values.spec_of(each) for each in found.tools]

    async def execute_host_tool(
        self, name: str, args: Mapping[str, Any] = NOTHING, *, session_id: str = "", timeout: float | None = None
    ) -> Any:
        """Run a host tool, and return its result. Raises `ToolError` if the tool failed."""
        packed = {key: values.to_any(value, f"{name}: {key}", binary=False)[0] for key, value in args.items()}
        request = messages.ExecuteElixirToolRequest(session_id=session_id, tool_name=name, parameters=packed)
        found = await self._call("ExecuteElixirTool", request, messages.ExecuteElixirToolResponse, timeout)
        return self.read_answer(found, found.binary_result)

    def read_answer(self, found: Any, binary: bytes) -> Any:
        """The result in the answer of a tool. Raises `ToolError` if the tool failed, and `DecodeError`."""
        if not found.success:
            raise error_of(failure_of(found.error_message))
        return values.from_any(found.result, binary, allow_pickle=self.allow_pickle)

    # Telemetry.

    def stream_telemetry(
        self, controls: Iterable[messages.TelemetryControl] = ()
    ) -> AsyncGenerator[messages.TelemetryEvent, None]:
        """Yield the peer's events as they happen; `controls` select them. Close the generator to stop."""
        return self._stream("StreamTelemetry", list(controls), messages.TelemetryEvent)


def _tool_request(
    name: str,
    args: Mapping[str, Any],
    session_id: str,
    metadata: Mapping[str, str],
    large_values: LargeValues,
    *,
    stream: bool,
) -> messages.ExecuteToolRequest:
    packed, binaries = values.pack_parameters(args, name, large_values=large_values)
    return messages.ExecuteToolRequest(
        session_id=session_id,
        tool_name=name,
        parameters=packed,
        binary_parameters=binaries,
        metadata=dict(metadata),
        stream=stream,
    )


def _stream_failure(error: RemoteError) -> SnakepitError:
    if error.status != "INTERNAL":
        return error
    return error_of(failure_of(str(error).removeprefix("INTERNAL: ")))


def _check(found: Any) -> None:
    """Raise `ToolError` if an answer reports a failure."""
    if not found.success:
        raise ToolError(readable(found.error_message) or "the peer refused, and did not say why")
