"""Enforces the type hints of tools: msgspec converts the types that it knows, and our own rules cover the rest."""

from . import objects, own
from .builder import enforced
from .own import Unenforceable, check_lists, convert, hook, optional, plain
from .restoring import has_marks, hint_of_chunks, hints_of, restored

__all__ = [
    "Unenforceable",
    "check_lists",
    "convert",
    "enforced",
    "has_marks",
    "hint_of_chunks",
    "hints_of",
    "hook",
    "objects",
    "optional",
    "own",
    "plain",
    "restored",
]
