"""Type hints of tools, enforced: what msgspec knows it converts, and for the rest there are rules of our own."""

from . import objects, own
from .builder import enforced
from .own import Unenforceable, convert, hook, optional

__all__ = ["Unenforceable", "convert", "enforced", "hook", "objects", "optional", "own"]
