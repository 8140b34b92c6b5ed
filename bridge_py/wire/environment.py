"""Names by which a host tells its worker what to be, and a worker tells the processes of its tools."""

from __future__ import annotations

from typing import Final

PATH_VARIABLE: Final = "SNAKEPIT_SYS_PATH"
OPTIONS_VARIABLE: Final = "SNAKEPIT_ADAPTER_OPTIONS"
#: The token of the host, for our own worker that speaks the wire contract.
TOKEN_VARIABLE: Final = "SNAKEPIT_BRIDGE_TOKEN"  # noqa: S105 - a name
SCRIPT_VARIABLE: Final = "SNAKEPIT_SCRIPT"
SCRIPT_MODULE: Final = "__snakepit_main__"  # what a worker calls the host's script
LOADING: Final = "__snakepit_loading__"  # in that module while it runs
