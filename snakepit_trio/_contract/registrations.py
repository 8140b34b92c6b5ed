"""Reads RegisterTools: workers of 0.4 say again with each call which tools they have."""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

from grpclib.encoding.proto import ProtoCodec

from bridge_py.wire.messages.snakepit import bridge as messages

_KEPT: Final = 16  # registrations
_MOST_BYTES: Final = 64 * 1024  # of a registration that is kept
_SESSION_ID: Final = 0x0A  # the tag of the first field
_LONG: Final = 0x80  # a size from here on has several bytes


class RegistrationCodec(ProtoCodec):
    """grpclib's codec. What it has read of the latest registrations it does not read again.

    Requests that name the same tools have the same list of them. It must not be changed.
    """

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Read a message."""
        found = read_registration(data) if message_type is messages.RegisterToolsRequest else None
        if found is None:
            return super().decode(data, message_type)
        return messages.RegisterToolsRequest(found.session_id, found.tools, found.worker_id)


class Registration(NamedTuple):
    """The content of a RegisterToolsRequest."""

    session_id: str
    tools: list[messages.ToolRegistration]
    worker_id: str


def read_registration(data: bytes) -> Registration | None:
    """Read a RegisterToolsRequest; None if it is too large to be kept. Raises what betterproto raises."""
    if len(data) > _MOST_BYTES:
        return None
    session_id, rest = _split(data)
    found = _read(rest)
    return Registration(found.session_id or session_id, found.tools, found.worker_id)


def _split(data: bytes) -> tuple[str, bytes]:
    """The session id, if that comes first, and all else, which is the same in each session."""
    if len(data) < 2 or data[0] != _SESSION_ID or data[1] >= _LONG or len(data) < 2 + data[1]:
        return "", data
    end = 2 + data[1]
    return data[2:end].decode(), data[end:]


@functools.lru_cache(maxsize=_KEPT)
def _read(data: bytes) -> messages.RegisterToolsRequest:
    return messages.RegisterToolsRequest.FromString(data)
