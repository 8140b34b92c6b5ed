"""Names of OpenTelemetry's semantic conventions for RPC, as they are stable in version 1.45.

https://github.com/open-telemetry/semantic-conventions/tree/v1.45.0/docs/rpc. They are written down here, because
Python's package of them has the names of drafts (`rpc.response.status_code`), and workers need not have it.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "https://opentelemetry.io/schemas/1.45.0"
SYSTEM_NAME: Final = "rpc.system.name"
METHOD: Final = "rpc.method"
STATUS_CODE: Final = "rpc.status_code"
ERROR_TYPE: Final = "error.type"
CLIENT_DURATION: Final = "rpc.client.call.duration"
SERVER_DURATION: Final = "rpc.server.call.duration"
#: Seconds, as advised for both.
BOUNDARIES: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: A method that has no name of its own in metrics.
OTHER: Final = "_OTHER"

#: Our values. Any other status is the name of the error that the caller gets.
SYSTEM: Final = "snakepit"
OK: Final = "OK"
CANCELLED: Final = "CANCELLED"
TOOL_FAILED: Final = "ToolError"
HOST_TOOL_FAILED: Final = "HostToolError"
#: Where our spans and metrics come from.
SCOPE: Final = "snakepit_trio"
