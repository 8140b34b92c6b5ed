"""For the tests of applications: pools whose workers run in the test's own process and trio run, on its clock.

`conformance` has checks for an application's own stores, launchers and adapters. Import the modules `machines`,
`strategies` and `pytest_plugin` by themselves: they need Hypothesis or pytest.
"""

from bridge_py.wire.public_names import publish

from . import conformance
from .faults import (
    BatchFault,
    Cut,
    Die,
    Fault,
    Faults,
    Garbage,
    Happened,
    IgnoreCancel,
    RefuseStart,
    Silence,
    Slow,
    Split,
)
from .memory import InMemory
from .replay import Hanging, run

__all__ = [
    "BatchFault",
    "Cut",
    "Die",
    "Fault",
    "Faults",
    "Garbage",
    "Hanging",
    "Happened",
    "IgnoreCancel",
    "InMemory",
    "RefuseStart",
    "Silence",
    "Slow",
    "Split",
    "conformance",
    "run",
]

publish(__name__, __all__)
