"""`python -m bridge_py`: a worker process.

The host starts it with an inherited listening socket, so that connecting needs no retries, and with
the link's secret in a page of memory that both share.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:
    # Started by path, in an interpreter that does not have this package on its own: make this
    # package importable, and no other.
    import importlib.util

    here = Path(__file__).resolve().parent
    sys.path = [entry for entry in sys.path if not entry or Path(entry).resolve() != here]
    spec = importlib.util.spec_from_file_location(
        "bridge_py", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["bridge_py"] = package
    spec.loader.exec_module(package)

# Children of multiprocessing run this module too, by another name.
if __name__ == "__main__":
    # The imports make no garbage. To look for garbage meanwhile, and in all of this later, would cost a tenth of the
    # start.
    gc.disable()
    from bridge_py.execution.ending import leave
    from bridge_py.main import main

    gc.freeze()
    gc.enable()
    leave(main(sys.argv[1:]))
