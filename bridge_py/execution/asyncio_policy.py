"""Restores plain asyncio for code outside of trio, after trio-asyncio has been imported."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

TRIO_ASYNCIO: Final = "trio_asyncio"


def restore_asyncio() -> None:
    """Undo the effects of importing trio-asyncio on code outside of trio. Does nothing if it has not been imported.

    trio-asyncio keeps one event loop policy for each thread. Where none has been set, it makes synchronous loops of its
    own. Those loops cannot run functions in threads, and an interrupt breaks them. This function installs one policy of
    the whole process instead, as in plain asyncio: the policy from before the import, or the one that the application
    sets later.
    """
    # From Python 3.12 on the module calls itself by another name, so it is found as an attribute of its package.
    inside = getattr(sys.modules.get(TRIO_ASYNCIO), "_loop", None)
    outside = getattr(inside, "_faked_policy", None)
    if outside is None or isinstance(vars(type(outside)).get("policy"), property):
        return
    policy = outside.policy or inside._original_policy  # type: ignore[union-attr]  # `outside` is found in it

    def get_policy(_threads: Any) -> Any:
        return policy

    def set_policy(_threads: Any, new: Any) -> None:
        nonlocal policy
        policy = asyncio.DefaultEventLoopPolicy() if new is None else new

    type(outside).policy = property(get_policy, set_policy)
