"""Answers to requests that need neither the store nor a task: workers of 0.4 make three of these for each call."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final

from bridge_py.contract import values
from bridge_py.contract.at_once import Answers
from bridge_py.contract.tool_messages import read_session_id, text_entries
from bridge_py.wire.messages.snakepit import bridge as messages
from snakepit_trio._requests.tool_registry import RegisteredTool

from .access import Access
from .registrations import read_registration
from .server import BridgeService, tool_message

_PATH: Final = "/snakepit.bridge.BridgeService/"
_SUCCESS: Final = b"\x08\x01"
_TOOL_IDS: Final = 0x12  # the tag of the map in a RegisterToolsResponse


def quick_answers(service: BridgeService, access: Access) -> Answers:
    """What a service can answer at once."""
    found = _QuickAnswers(service, access)
    return {
        f"{_PATH}InitializeSession": found.initialize_session,
        f"{_PATH}GetExposedElixirTools": found.get_exposed_elixir_tools,
        f"{_PATH}RegisterTools": found.register_tools,
        f"{_PATH}Heartbeat": found.heartbeat,
    }


class _QuickAnswers:
    def __init__(self, service: BridgeService, access: Access) -> None:
        self._service = service
        self._access = access
        self._opened = _Latest(_opened)
        self._exposed = _Latest(_exposed)

    def initialize_session(self, data: bytes) -> bytes | None:
        session_id = read_session_id(data)
        if not session_id or not self._access.promise(session_id):
            return None
        return self._opened(self._access.host_tools(session_id))

    def get_exposed_elixir_tools(self, data: bytes) -> bytes | None:
        session_id = read_session_id(data)
        if session_id is None or not self._access.check_at_once(session_id):
            return None
        return self._exposed(self._access.host_tools(session_id))

    def register_tools(self, data: bytes) -> bytes | None:
        found = read_registration(data)
        if found is None or not self._access.check_at_once(found.session_id):
            return None
        specs = self._service.note_tools(found)
        return _registered(found.session_id, tuple(spec.name for spec in specs))

    def heartbeat(self, data: bytes) -> bytes | None:
        session_id = messages.HeartbeatRequest.FromString(data).session_id
        if not self._access.is_valid_for_sure(session_id):
            return None
        return bytes(messages.HeartbeatResponse(server_time=values.timestamp(time.time()), session_valid=True))


class _Latest:
    """The message for a list of tools. What it was for the latest list is kept: most sessions have the same tools."""

    def __init__(self, write: Callable[[list[RegisteredTool]], bytes]) -> None:
        self._write = write
        self._tools: list[RegisteredTool] | None = None
        self._found = b""

    def __call__(self, tools: list[RegisteredTool]) -> bytes:
        if tools != self._tools:
            self._found, self._tools = self._write(tools), tools
        return self._found


def _opened(tools: list[RegisteredTool]) -> bytes:
    found: Any = {tool.name: tool_message(tool) for tool in tools}
    return bytes(messages.InitializeSessionResponse(success=True, available_tools=found))


def _exposed(tools: list[RegisteredTool]) -> bytes:
    return bytes(messages.GetExposedElixirToolsResponse(tools=[tool_message(tool) for tool in tools]))


@functools.lru_cache(maxsize=256)
def _registered(session_id: str, names: tuple[str, ...]) -> bytes:
    return _SUCCESS + text_entries(_TOOL_IDS, [(name, f"{session_id}:{name}") for name in names])
