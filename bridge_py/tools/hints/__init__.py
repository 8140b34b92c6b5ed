"""Enforces the type hints of tools: msgspec converts the types that it knows, and our own rules cover the rest."""

from . import objects, own
from .builder import enforced
from .own import Unenforceable, check_lists, convert, hook, optional

__all__ = ["Unenforceable", "check_lists", "convert", "enforced", "hook", "objects", "optional", "own"]
