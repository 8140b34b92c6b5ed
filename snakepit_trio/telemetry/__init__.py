"""What a pool tells about itself."""

from .events import Event, Events

__all__ = ["Event", "Events"]
