"""Where users are when they give a command. The standard library is enough, as packages may be missing."""

from __future__ import annotations

import os
import sys


def import_from_here() -> None:
    """Have this process, and its workers, import from the working directory too.

    The command is a script in another folder, and users name their adapter from where they are. The folder comes last,
    as it does in workers: a file of the user's that is named like a module of the standard library hides nothing.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it has been deleted
        return
    if here not in sys.path:
        sys.path.append(here)
