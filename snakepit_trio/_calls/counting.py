"""Which outcome a call counts as in the statistics of its pool. Each run of a call counts once."""

from __future__ import annotations

from typing import Final

import trio

from bridge_py.wire.errors import ToolCancelled

from .call import Call, CallState

#: `Call.unwanted` of calls whose cancellation nobody else has counted.
_UNCOUNTED: Final = (None, ToolCancelled)


def is_given_up(call: Call, error: BaseException) -> bool:
    """Whether a call counts as cancelled. An error comes out where it was made, or out of its stream's block.

    Calls that were refused, and calls whose outcome is counted elsewhere, do not.
    """
    if call.unwanted not in _UNCOUNTED:
        return False
    if call.is_over:
        return call.abandoned and call.unwanted is not None
    return isinstance(error, trio.Cancelled) or call.state is not CallState.NEW


def is_counted(call: Call) -> bool:
    """Whether a call that ends on its worker is counted already: somebody has given it up."""
    return call.abandoned or call.unwanted not in _UNCOUNTED


def is_left(stream: Call) -> bool:
    """Whether a stream whose block ends without an error is left early. It counts as succeeded."""
    return not stream.is_over and stream.unwanted in _UNCOUNTED
