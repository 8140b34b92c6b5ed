"""Names by which a host tells its worker what to be, and a worker tells the processes of its tools."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Final

#: The host's module search path, as a list in JSON: a folder's name may have any separator in it.
PATH_VARIABLE: Final = "SNAKEPIT_SYS_PATH"
#: The number of a worker among the workers of its pool, from 0 on.
NUMBER_VARIABLE: Final = "SNAKEPIT_WORKER_NUMBER"
#: The file by which a worker of the contract "0.13" says that it is ready.
READY_VARIABLE: Final = "SNAKEPIT_READY_FILE"
OPTIONS_VARIABLE: Final = "SNAKEPIT_ADAPTER_OPTIONS"
#: The token of the host, for our own worker that speaks the wire contract.
TOKEN_VARIABLE: Final = "SNAKEPIT_BRIDGE_TOKEN"  # noqa: S105 - a name
SCRIPT_VARIABLE: Final = "SNAKEPIT_SCRIPT"
SCRIPT_MODULE: Final = "__snakepit_main__"  # what a worker calls the host's script
LOADING: Final = "__snakepit_loading__"  # in that module while it runs


def search_path(entries: Iterable[str]) -> str:
    """The value of `PATH_VARIABLE` for a module search path. Empty entries are left out."""
    return json.dumps([entry for entry in entries if entry])


def worker_number() -> int | None:
    """The number of this worker, as its environment has it; None if there is none."""
    text = os.environ.get(NUMBER_VARIABLE, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
