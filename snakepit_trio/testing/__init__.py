"""For the tests of applications: pools whose workers run in the test's own process and trio run, on its clock.

`contract` has checks for stores, launchers and adapters that an application has of its own.
"""

from . import contract
from .memory import InMemory

__all__ = ["InMemory", "contract"]
