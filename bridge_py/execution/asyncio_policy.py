"""Makes asyncio its own again outside of trio, after trio-asyncio has been imported."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

TRIO_ASYNCIO: Final = "trio_asyncio"


def restore_asyncio() -> None:
    """Undo what the import of trio-asyncio does to code outside of trio. Does nothing if it has not been imported.

    trio-asyncio keeps one policy for each thread, and makes synchronous loops of its own where none has been set. Those
    run no function in a thread, and an interrupt breaks them. Here one policy of the process takes that place, as in
    plain asyncio: the one that was there before the import, or what the application sets later.
    """
    # The module calls itself by another name from Python 3.12 on, so it is found as an attribute of its package.
    inside = getattr(sys.modules.get(TRIO_ASYNCIO), "_loop", None)
    outside = getattr(inside, "_faked_policy", None)
    if outside is None or isinstance(vars(type(outside)).get("policy"), property):
        return
    policy = outside.policy or inside._original_policy  # type: ignore[union-attr]

    def get_policy(_threads: Any) -> Any:
        return policy

    def set_policy(_threads: Any, new: Any) -> None:
        nonlocal policy
        policy = asyncio.DefaultEventLoopPolicy() if new is None else new

    type(outside).policy = property(get_policy, set_policy)
