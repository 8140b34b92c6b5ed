"""Sessions in a Redis server, for many hosts. Needs the extra `redis`."""

from bridge_py.wire.public_names import publish

from .store import RedisStore

__all__ = ["RedisStore"]

publish(__name__, __all__)
