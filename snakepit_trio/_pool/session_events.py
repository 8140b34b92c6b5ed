"""The events of sessions and of their variables."""

from __future__ import annotations

from collections.abc import Sequence

from snakepit_trio.state.session import Change
from snakepit_trio.telemetry import Events


def tell_of_session(events: Events, session_id: str, changes: Sequence[Change] | None) -> None:
    """Tell that a session is new (no changes), has changed, or has ended (None)."""
    if not events.is_heard:
        return
    if not changes:
        events.emit("session.ended" if changes is None else "session.started", {"session": session_id})
    for change in changes or ():
        about = {"session": session_id, "variable": change.name}
        if change.variable is None:
            events.emit("variable.deleted", about)
        elif change.cause is None:  # else only a variable has changed that it depends on
            events.emit("variable.changed", about, version=change.variable.version)
