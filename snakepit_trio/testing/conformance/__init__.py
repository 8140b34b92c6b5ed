"""Checks of what a pool needs of a store, a launcher or an adapter. Any of these can be checked.

`store(make)`, `launcher(make)` and `adapter(adapter, calls)` each return a `Contract`: a sequence of named checks, for
pytest's `parametrize`, or for `trio.run(contract.run)`. Nothing in here needs pytest.
"""

from bridge_py.wire.public_names import publish

from .check import Check, Contract, LeftOut, Report
from .contracts import adapter, launcher, store

__all__ = ["Check", "Contract", "LeftOut", "Report", "adapter", "launcher", "store"]

publish(__name__, __all__)
