"""Type hints of tools, enforced: what msgspec knows it converts, and for the rest there are rules of our own."""

from . import objects, own
from .own import Unenforceable, convert, enforced, hook, optional

__all__ = ["Unenforceable", "convert", "enforced", "hook", "objects", "optional", "own"]
