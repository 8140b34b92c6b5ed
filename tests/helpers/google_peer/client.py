"""A client of the wire contract, with Google's gRPC and protobuf and nothing of ours.

`client.py <mode> <address>` finds the modules that stubs.py generates in the folder GOOGLE_STUBS, runs every check of
the mode at the address, prints a line for each, and exits 1 if one failed. Names after the address choose some of the
checks, which are in the modules of GROUPS.

- host: a host's service, of a pool of two workers that have the tools of tests/helpers/contract_tools.py, with the
  host tools of tests/peers/test_grpc_server.py
- worker: a worker with those tools, which runs one call at a time. GOOGLE_HOST is the address of its host, which has
  those host tools; GOOGLE_CONTRACT is 0.4 or 0.13
- alone, unreachable: a worker that has no host, or one that cannot be reached
- theirs: a host's service that reads pickles, of a pool of the tools of tests/peers/test_their_values.py
- die, term, orphan: a worker, which ends by itself, by SIGTERM, and by the death of its parent
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback

import grpc
from connection import (  # type: ignore[import-not-found]  # beside this script
    ADDRESS,
    CHECKS,
    MODE,
    Check,
    Client,
)

# In the order in which their checks run.
GROUPS = (
    "sessions",
    "variables",
    "large",
    "watching",
    "tools",
    "streams",
    "telemetry",
    "standard",
    "leftovers",
    "workers",
    "theirs",
)


def main() -> int:
    for group in GROUPS:
        importlib.import_module(group)
    client, names = Client(ADDRESS), sys.argv[3:]
    chosen = [function for function in CHECKS[MODE] if not names or function.__name__ in names]
    outcomes = [passes(function, client) for function in chosen]
    client.close()
    return 0 if outcomes and all(outcomes) else 1


def passes(function: Check, client: Client) -> bool:
    began = time.monotonic()
    try:
        function(client)
    except Exception as error:
        print(f"FAILED {function.__name__}: {describe(error)}")
        print(traceback.format_exc(), flush=True)
        return False
    print(f"ok {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def describe(error: Exception) -> str:
    # The str of an RpcError is a page of internals.
    if isinstance(error, grpc.RpcError):
        return f"{error.code()}: {error.details()}"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
