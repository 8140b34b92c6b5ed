"""For the tests of applications: pools whose workers run in the test's own process and trio run, on its clock."""

from .memory import InMemory

__all__ = ["InMemory"]
