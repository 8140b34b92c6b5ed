"""What a Redis server refuses, and what that means: whether it passes, and who must do what."""

from __future__ import annotations

import re
from typing import Final

from coredis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ReadOnlyError,
    RedisClusterError,
    ResponseError,
    WrongTypeError,
)

#: By the code of an error: what it means. Redis 6 has the code of an error within a script in the middle of the text.
_PASSING: Final = {
    "READONLY": "it is a replica, and no primary",
    "LOADING": "it is still loading its data",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "NOREPLICAS": "it has too few replicas in step (min-replicas-to-write)",
    "BUSY": "it is busy with another script",
    "TRYAGAIN": "it is moving its data",
}
_LASTING: Final = {
    "OOM": "its memory is full (maxmemory): delete sessions, or give it more; nothing was changed",
    "MISCONF": "it cannot write to its disk, so it takes no changes: look at its log; nothing was changed",
    "NOSPACE": "its disk is full; nothing was changed",
    "NOPERM": "this user may not do that there ({}): docs/state.md says which rights it needs",
    "CLUSTERDOWN": "it is part of a Redis Cluster, which this store does not support: give a primary with replicas",
    "MOVED": "it is part of a Redis Cluster, which this store does not support: give a primary with replicas",
    "CROSSSLOT": "it is part of a Redis Cluster, which this store does not support: give a primary with replicas",
    "WRONGTYPE": "another program uses the keys of this store: give another prefix",
}
_CODE: Final = re.compile(rf"(?:^|\s-?)({'|'.join([*_PASSING, *_LASTING])})\b")
_CLASSES: Final[dict[type[ResponseError], str]] = {
    ReadOnlyError: "READONLY",
    AuthorizationError: "NOPERM",
    WrongTypeError: "WRONGTYPE",
}


class Refusal(Exception):
    """A server has refused a command, and changed nothing.

    `passes` says whether it may do it a little later, or another server does it. `problem` is a text for humans.
    """

    def __init__(self, problem: str, *, passes: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.passes = passes


def refusal_of(error: ResponseError) -> Refusal:
    """What an error of the server means."""
    code = _code_of(error)
    if code in _PASSING:
        return Refusal(_PASSING[code], passes=True)
    if code in _LASTING:
        return Refusal(_LASTING[code].format(error))
    if isinstance(error, AuthenticationError):
        return Refusal(f"it does not let us in: give the right user and password, in the URL or apart ({error})")
    return Refusal(f"it says: {error}")


def _code_of(error: ResponseError) -> str:
    if isinstance(error, RedisClusterError):
        return "CLUSTERDOWN"
    for kind, code in _CLASSES.items():
        if isinstance(error, kind):
            return code
    if "user executing the script can't" in str(error):
        return "NOPERM"
    found = _CODE.search(str(error))
    return "" if found is None else found[1]
