"""`python -m bridge_py`: a worker process.

The host starts it with an inherited listening socket, so that connecting needs no retries, and with
the link's secret in a page of memory that both share. With `--template` it is a process that forks workers.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - it runs in any interpreter that a pool names
    sys.exit(f"{sys.executable} is too old: workers need Python 3.11 or later. Name another one, open_pool(python=)")

if not __package__ and "bridge_py" not in sys.modules:
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
    from bridge_py.command_line import parse

    # First, because it ends here for `--help` and for mistakes.
    options = None if sys.argv[1:2] == ["--template"] else parse(sys.argv[1:])
    # The imports make no garbage. To look for garbage meanwhile, and in all of this later, would cost a tenth of the
    # start.
    gc.disable()
    try:
        from bridge_py.execution.ending import leave
        from bridge_py.main import run
    except ModuleNotFoundError as error:
        if error.name not in ("msgspec", "grpclib", "h2", "hpack"):
            raise
        sys.exit(
            f"{sys.executable}, the workers' interpreter, lacks the package {error.name}: install what workers need"
            f" there, {sys.executable} -m pip install snakepit-trio-worker, or name another one, open_pool(python=)"
        )

    if options is None:
        from bridge_py.template.process import serve

        serve(sys.argv[2:])
    gc.freeze()
    gc.enable()
    leave(run(options))
