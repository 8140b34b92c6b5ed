"""The server of the wire contract: it answers what clients and foreign workers ask of the host.

Statuses: NOT_FOUND for a missing session, variable or tool; INVALID_ARGUMENT for a bad value; ABORTED for a version
that is not the expected one; ALREADY_EXISTS for a name that is taken; PERMISSION_DENIED for a denied access;
RESOURCE_EXHAUSTED for a full store. If a tool fails, the answer has `success = false`, and a stream ends with INTERNAL.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, NamedTuple, TypeVar, cast

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from bridge_py.contract import values
from bridge_py.contract.serving import READS_RAW, ContractService
from bridge_py.contract.statuses import status_of, text_of
from bridge_py.contract.telemetry import TelemetryFeed
from bridge_py.wire.any_values import LargeValues
from bridge_py.wire.errors import (
    AccessDenied,
    CallTimeout,
    InvalidValue,
    SessionNotFound,
    SnakepitError,
    VariableNotFound,
)
from bridge_py.wire.messages.snakepit import bridge as messages
from bridge_py.wire.specs import ToolSpec
from bridge_py.wire.trace_context import TraceContext, correlation_id, current_trace
from bridge_py.wire.variable import Variable
from snakepit_trio._requests.tool_registry import RegisteredTool
from snakepit_trio._util.asyncio_loop import in_trio
from snakepit_trio._util.log import get_logger
from snakepit_trio.state.watching import Update
from snakepit_trio.telemetry import Event, Events

from .access import Access
from .registrations import Registration

_MOST_TOLD: Final = 1000  # warnings about values without JSON
#: Events that are told in the task of a call's caller, or of a host tool. Other tasks have whatever context.
_OF_CALLERS = frozenset(f"{of}.{step}" for of in ("call", "stream", "tool") for step in ("start", "stop", "exception"))
logger = get_logger("snakepit.bridge")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


def _rpc(function: F) -> F:
    """Make a function that runs in trio a method of the service."""

    @functools.wraps(function)
    async def answer(self: Any, message: Any) -> Any:
        with _errors_as_statuses(function.__name__):
            return await in_trio(_with_context, READS_RAW.get(), function, self, message)

    return cast("F", answer)


async def _with_context(reads_raw: bool, function: Callable[..., Any], service: BridgeService, message: Any) -> Any:
    # A task of trio does not inherit the context of the request.
    READS_RAW.set(reads_raw)
    await service.keep_promise(message.session_id)
    return await function(service, message)


@contextlib.contextmanager
def _errors_as_statuses(rpc: str) -> Iterator[None]:
    try:
        yield
    except SnakepitError as error:
        raise status_of(error) from None
    except GRPCError:
        raise
    except Exception as error:
        logger.exception("%s failed", rpc)
        raise GRPCError(Status.INTERNAL, f"{type(error).__name__}: {error}") from None


class _Item(NamedTuple):
    value: Any


async def _entered(
    running: contextlib.AsyncExitStack, stream: contextlib.AbstractAsyncContextManager[Any], trace: TraceContext | None
) -> Any:
    current_trace.set(trace)
    return await running.enter_async_context(stream)


class BridgeService(ContractService):
    """The service, for one kind of client."""

    def __init__(self, access: Access, events: Events) -> None:
        self._access = self.access = access
        self._events = events
        self._tools: list[messages.ToolRegistration] = []  # of the latest registration
        self._specs: list[ToolSpec] = []  # the same
        self._told: set[str] = set()  # ids of variables whose values the log has said to be without JSON

    @property
    def _form(self) -> LargeValues:
        """How large arrays go to the client of the request that is being answered."""
        return values.RAW if READS_RAW.get() else self._access.large_values

    def _message(self, variable: Variable) -> messages.Variable:
        return values.variable_message(variable, large_values=self._form)

    def _message_if_possible(self, variable: Variable) -> messages.Variable | None:
        """Encode a variable among others; None, with a warning in the log, if its value has no JSON."""
        try:
            return self._message(variable)
        except InvalidValue as error:
            if variable.id not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(variable.id)
                logger.warning("variable %r is left out of answers: %s", variable.name, error)
            return None

    # Sessions.

    async def ping(self, message: messages.PingRequest) -> messages.PingResponse:
        return messages.PingResponse(message=message.message, server_time=values.timestamp(time.time()))

    async def keep_promise(self, session_id: str) -> None:
        """Make the session if the client was promised it. Raises `SessionError`."""
        await self._access.keep_promise(session_id)

    async def initialize_session(
        self, message: messages.InitializeSessionRequest
    ) -> messages.InitializeSessionResponse:
        with _errors_as_statuses("initialize_session"):
            if not message.session_id:
                raise InvalidValue("a session has an id: session_id is empty")
            if message.metadata or not self._access.promise(message.session_id):
                return await self._initialize(message)
            return self._opened(message.session_id)

    @_rpc
    async def _initialize(self, message: messages.InitializeSessionRequest) -> messages.InitializeSessionResponse:
        view = await self._access.initialize(message.session_id)
        for key, text in message.metadata.items():
            await view.put_metadata(key, text)
        return self._opened(message.session_id)

    def _opened(self, session_id: str) -> messages.InitializeSessionResponse:
        tools = {tool.name: tool_message(tool) for tool in self._access.host_tools(session_id)}
        return messages.InitializeSessionResponse(success=True, available_tools=tools)

    async def _check(self, session_id: str) -> None:
        if not self._access.check_at_once(session_id):
            await in_trio(self._access.check, session_id)

    @_rpc
    async def cleanup_session(self, message: messages.CleanupSessionRequest) -> messages.CleanupSessionResponse:
        try:
            info = await self._access.view(message.session_id).info()
        except SessionNotFound:
            return messages.CleanupSessionResponse(success=True)
        tools = [tool for tool in self._access.host_tools(message.session_id) if tool.session_id is not None]
        gone = await self._access.cleanup(message.session_id)
        return messages.CleanupSessionResponse(
            success=gone, resources_cleaned=info.variables + info.programs + len(tools)
        )

    @_rpc
    async def get_session(self, message: messages.GetSessionRequest) -> messages.GetSessionResponse:
        info = await self._access.view(message.session_id).info()
        tools = len(self._access.host_tools(message.session_id))
        return messages.GetSessionResponse(
            session_id=info.id,
            metadata=info.metadata,
            created_at=values.timestamp(info.created_at),
            variable_count=tools if self._access.is_modern else info.variables,  # the field that 0.13 has for tools
            tool_count=tools,
        )

    async def heartbeat(self, message: messages.HeartbeatRequest) -> messages.HeartbeatResponse:
        valid = self._access.is_valid_for_sure(message.session_id) or await in_trio(self._is_valid, message.session_id)
        return messages.HeartbeatResponse(server_time=values.timestamp(time.time()), session_valid=valid)

    async def _is_valid(self, session_id: str) -> bool:
        try:
            return await self._access.is_valid(session_id)
        except SnakepitError:
            return False

    # Variables.

    @_rpc
    async def register_variable(self, message: messages.RegisterVariableRequest) -> messages.RegisterVariableResponse:
        found = await self._access.view(message.session_id).register_variable(
            message.name,
            message.type or None,
            self._value(message.initial_value, message.initial_binary_value),
            constraints=values.parse_json(message.constraints_json, "constraints_json"),
            metadata=message.metadata,
            source="worker",
        )
        return messages.RegisterVariableResponse(success=True, variable_id=found.id)

    @_rpc
    async def get_variable(self, message: messages.GetVariableRequest) -> messages.GetVariableResponse:
        found = await self._access.view(message.session_id).get_variable(message.variable_identifier)
        return messages.GetVariableResponse(variable=self._message(found))

    @_rpc
    async def get_variables(self, message: messages.BatchGetVariablesRequest) -> messages.BatchGetVariablesResponse:
        found, missing = await self._access.view(message.session_id).get_variables(message.variable_identifiers)
        return messages.BatchGetVariablesResponse(
            variables={name: self._message(each) for name, each in found.items()}, missing_variables=missing
        )

    @_rpc
    async def set_variable(self, message: messages.SetVariableRequest) -> messages.SetVariableResponse:
        found = await self._access.view(message.session_id).update_variable(
            message.variable_identifier,
            self._value(message.value, message.binary_value),
            expected_version=message.expected_version or None,
            metadata=message.metadata,
            source="worker",
            owner=self._access.owner(message.session_id),
        )
        return messages.SetVariableResponse(success=True, new_version=found.version)

    @_rpc
    async def set_variables(self, message: messages.BatchSetVariablesRequest) -> messages.BatchSetVariablesResponse:
        view = self._access.view(message.session_id)
        updates, errors = self._updates(message)
        if errors and message.atomic:
            await view.info()  # raises if there is no such session
            return messages.BatchSetVariablesResponse(success=False, errors=errors)
        found = await view.update_variables(
            updates,
            atomic=message.atomic,
            metadata=message.metadata,
            source="worker",
            owner=self._access.owner(message.session_id),
        )
        errors |= {name: str(each) for name, each in found.items() if not isinstance(each, Variable)}
        versions = {name: each.version for name, each in found.items() if isinstance(each, Variable)}
        return messages.BatchSetVariablesResponse(success=not errors, errors=errors, new_versions=versions)

    def _updates(self, message: messages.BatchSetVariablesRequest) -> tuple[dict[str, Any], dict[str, str]]:
        """The updates whose values can be read, and the errors of the others; both by name."""
        updates: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name, value in message.updates.items():
            try:
                updates[name] = self._value(value, message.binary_updates.get(name, b""))
            except InvalidValue as error:
                errors[name] = str(error)
        return updates, errors

    @_rpc
    async def list_variables(self, message: messages.ListVariablesRequest) -> messages.ListVariablesResponse:
        found = await self._access.view(message.session_id).list_variables(message.pattern or "*")
        packed = [self._message_if_possible(each) for each in found]
        return messages.ListVariablesResponse(variables=[each for each in packed if each is not None])

    @_rpc
    async def delete_variable(self, message: messages.DeleteVariableRequest) -> messages.DeleteVariableResponse:
        owner = self._access.owner(message.session_id)
        await self._access.view(message.session_id).delete_variable(message.variable_identifier, owner=owner)
        return messages.DeleteVariableResponse(success=True)

    @_rpc
    async def add_dependency(self, message: messages.AddDependencyRequest) -> messages.AddDependencyResponse:
        view = self._access.view(message.session_id)
        await view.add_dependency(message.from_variable, message.to_variable, message.dependency_type or "data")
        return messages.AddDependencyResponse(success=True)

    @_rpc
    async def start_optimization(
        self, message: messages.StartOptimizationRequest
    ) -> messages.StartOptimizationResponse:
        found = await self._access.view(message.session_id).start_optimization(
            message.variable_identifier, message.optimizer_id, config=message.optimizer_config
        )
        return messages.StartOptimizationResponse(success=True, optimization_id=found.id)

    @_rpc
    async def stop_optimization(self, message: messages.StopOptimizationRequest) -> messages.StopOptimizationResponse:
        found = await self._access.view(message.session_id).stop_optimization(message.variable_identifier)
        value, _ = values.typed_any(found.value, found.type, large_values=self._form, binary=False)
        return messages.StopOptimizationResponse(success=True, final_value=value)

    @_rpc
    async def get_variable_history(
        self, message: messages.GetVariableHistoryRequest
    ) -> messages.GetVariableHistoryResponse:
        view = self._access.view(message.session_id)
        variable = await view.get_variable(message.variable_identifier)
        entries = await view.history(message.variable_identifier, message.limit or None)
        return messages.GetVariableHistoryResponse(
            entries=[values.history_message(entry, variable.type, large_values=self._form) for entry in entries]
        )

    @_rpc
    async def rollback_variable(self, message: messages.RollbackVariableRequest) -> messages.RollbackVariableResponse:
        found = await self._access.view(message.session_id).rollback(
            message.variable_identifier,
            message.target_version,
            source="worker",
            owner=self._access.owner(message.session_id),
        )
        return messages.RollbackVariableResponse(success=True, variable=self._message(found))

    async def watch_variables(self, message: messages.WatchVariablesRequest) -> AsyncIterator[messages.VariableUpdate]:
        watching = contextlib.AsyncExitStack()
        try:
            names = await self._names(message)
            watcher = await in_trio(
                watching.enter_async_context,
                self._access.view(message.session_id).watch(*names, initial=message.include_initial_values),
            )
            while (update := await in_trio(_next, watcher)) is not None:
                if (packed := self._update_message(update.value)) is not None:
                    yield packed
        except SnakepitError as error:
            raise status_of(error) from None
        finally:
            await in_trio(watching.aclose)  # noqa: ASYNC102 - asyncio's turn, once

    @_rpc
    async def _names(self, message: messages.WatchVariablesRequest) -> list[str]:
        found, missing = await self._access.view(message.session_id).get_variables(message.variable_identifiers)
        if missing:
            raise VariableNotFound(f"variable {missing[0]!r} not found in session {message.session_id!r}")
        return [each.name for each in found.values()]

    def _update_message(self, update: Update) -> messages.VariableUpdate | None:
        variable = update.variable
        packed = messages.Variable(name=update.name) if variable is None else self._message_if_possible(variable)
        if packed is None:
            return None
        return messages.VariableUpdate(
            variable_id=update.id,
            variable=packed,
            update_source="" if variable is None else variable.source,
            update_metadata={} if update.cause is None else {"cause": update.cause},
            timestamp=values.timestamp(time.time()),
            update_type=update.kind,
        )

    def _value(self, value: Any, binary: bytes) -> Any:
        return values.value_of(value, binary, allow_pickle=self._access.allow_pickle)

    # Tools.

    async def register_tools(self, message: messages.RegisterToolsRequest) -> messages.RegisterToolsResponse:
        with _errors_as_statuses("register_tools"):
            await self._check(message.session_id)
            specs = self.note_tools(message)
            return messages.RegisterToolsResponse(
                success=True, tool_ids={spec.name: f"{message.session_id}:{spec.name}" for spec in specs}
            )

    def note_tools(self, message: messages.RegisterToolsRequest | Registration) -> list[ToolSpec]:
        """Note the tools of a client, whose session is checked, and return them. Raises `UsageError`."""
        if message.tools is not self._tools:
            self._tools, self._specs = message.tools, [values.spec_of(each) for each in message.tools]
        self._access.register_tools(message.session_id, self._specs, message.worker_id)
        return self._specs

    async def get_exposed_elixir_tools(
        self, message: messages.GetExposedElixirToolsRequest
    ) -> messages.GetExposedElixirToolsResponse:
        with _errors_as_statuses("get_exposed_elixir_tools"):
            await self._check(message.session_id)
            tools = self._access.host_tools(message.session_id)
            return messages.GetExposedElixirToolsResponse(tools=[tool_message(tool) for tool in tools])

    @_rpc
    async def execute_elixir_tool(
        self, message: messages.ExecuteElixirToolRequest
    ) -> messages.ExecuteElixirToolResponse:
        response = messages.ExecuteElixirToolResponse()
        await self._execute(response, message, {}, self._call_host_tool)
        return response

    async def _call_host_tool(self, name: str, args: dict[str, Any], session_id: str, timeout: float | None) -> Any:
        with trio.move_on_after(math.inf if timeout is None else timeout):
            return await self._access.call_host_tool(name, args, session_id)
        raise CallTimeout(f"host tool {name!r} took longer than its {timeout:g} s")

    @_rpc
    async def execute_tool(self, message: messages.ExecuteToolRequest) -> messages.ExecuteToolResponse:
        response = messages.ExecuteToolResponse()
        await self._execute(response, message, message.binary_parameters, self._access.execute)
        return response

    async def _execute(self, response: Any, message: Any, binaries: Any, run: Callable[..., Any]) -> None:
        await self._access.check(message.session_id)
        began = time.monotonic()
        current_trace.set(TraceContext.of(message.metadata))  # this task is the request's own
        try:
            args = values.unpack_parameters(message.parameters, binaries, allow_pickle=self._access.allow_pickle)
            found = await run(message.tool_name, args, message.session_id, values.timeout_of(message.metadata))
            # Clients that do not read raw bytes do not look at `binary_result` either.
            response.result, response.binary_result = values.to_any(
                found, f"{message.tool_name}: result", large_values=self._form, binary=READS_RAW.get()
            )
            response.success = True
        except AccessDenied:
            raise
        except SnakepitError as error:
            response.error_message = text_of(error)
        response.execution_time_ms = values.execution_ms(began, time.monotonic())

    async def execute_streaming_tool(self, message: messages.ExecuteToolRequest) -> AsyncIterator[messages.ToolChunk]:
        running = contextlib.AsyncExitStack()
        name = message.tool_name
        number = 0
        try:
            await in_trio(self._access.check, message.session_id)
            args = values.unpack_parameters(
                message.parameters, message.binary_parameters, allow_pickle=self._access.allow_pickle
            )
            stream = self._access.stream(name, args, message.session_id, values.timeout_of(message.metadata))
            chunks = await in_trio(_entered, running, stream, TraceContext.of(message.metadata))
            while (chunk := await in_trio(_next, chunks)) is not None:
                yield messages.ToolChunk(chunk_id=f"{name}-{number}", data=values.chunk_data(chunk.value, name))
                number += 1
            yield messages.ToolChunk(chunk_id=f"{name}-{number}", is_final=True)
        except SnakepitError as error:
            raise _stream_status(error) from None
        finally:
            await in_trio(running.aclose)  # noqa: ASYNC102 - asyncio's turn, once

    # Telemetry.

    async def stream_telemetry(
        self, messages: AsyncIterator[messages.TelemetryControl]
    ) -> AsyncIterator[messages.TelemetryEvent]:
        feed = TelemetryFeed()

        def put(event: Event) -> None:
            metadata = {key: str(value) for key, value in event.metadata.items()}
            about = correlation_id() if event.name in _OF_CALLERS else None
            feed.put(event.name, event.measurements, metadata, about or "")

        detach = self._events.attach("*", put)
        obeying = asyncio.ensure_future(feed.obey(messages))
        try:
            async for event in feed.events():
                yield event
        finally:
            detach()
            obeying.cancel()


async def _next(items: AsyncIterator[Any]) -> _Item | None:
    # A future of asyncio cannot hold a StopAsyncIteration.
    async for item in items:
        return _Item(item)
    return None


def _stream_status(error: SnakepitError) -> GRPCError:
    status = status_of(error)
    return status if isinstance(error, (AccessDenied, SessionNotFound)) else GRPCError(Status.INTERNAL, text_of(error))


def tool_message(tool: RegisteredTool) -> messages.ToolSpec:
    """Encode a tool."""
    return values.tool_message(tool.spec, tool.metadata)
