"""The events of a pool."""

from bridge_py.wire.public_names import publish

from .events import Event, Events

__all__ = ["Event", "Events"]

publish(__name__, __all__)
