"""`python limited.py LIMITS COMMAND...`: set limits, which a JSON object gives, and become the command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if not __package__:
    # Started by path, so that the interpreter need not have this package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from bridge_py.execution.limits import apply_limits
from bridge_py.wire.errors import UsageError


def main(limits: str, *command: str) -> None:
    """Set the limits, and become the command."""
    try:
        apply_limits(json.loads(limits))
        os.execvp(command[0], command)  # noqa: S606 - the command is the caller's own
    except (UsageError, OSError) as error:
        sys.exit(f"snakepit: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
