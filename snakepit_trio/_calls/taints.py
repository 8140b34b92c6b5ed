"""Commands and sessions whose calls kill one worker after another: further calls of them are refused for a while."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.policies import TaintPolicy
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import Tainted
from snakepit_trio.telemetry import Events

from .call import Call

logger = get_logger("snakepit.dispatcher")


class Taints:
    """What the calls of a pool have done to its workers."""

    def __init__(self, config: PoolConfig, events: Events) -> None:
        self._policy = TaintPolicy(after=config.taint_after, period=config.taint_period)
        self._after = config.taint_after
        self._events = events

    @property
    def has_suspects(self) -> bool:
        """Whether the last call of any command, or of any session, killed its worker."""
        return bool(self._policy.deaths)

    def is_suspect(self, call: Call) -> bool:
        """Whether the last call of its command, or of its session, killed its worker."""
        return any(self._policy.suspects(key) for key in keys_of(call))

    def check(self, call: Call) -> None:
        """Raise `Tainted` if calls of its command, or of its session, are refused."""
        for key in keys_of(call):
            if seconds := self._policy.left(key, trio.current_time()):
                raise Tainted(*key, self._after, seconds)

    def succeeded(self, call: Call) -> None:
        """A call has ended, and its worker lives on."""
        for key in keys_of(call):
            self._policy.succeeded(key)

    def killed(self, suspects: Iterable[tuple[str, str]]) -> None:
        """A worker has died while it ran calls of these keys."""
        for key in sorted(suspects):
            if self._policy.killed(key, trio.current_time()):
                kind, name = key
                logger.warning("%s %r is tainted: its calls killed %d workers in a row", kind, name, self._after)
                self._events.emit("call.tainted", {"kind": kind, "name": name}, deaths=self._after)


def keys_of(call: Call) -> list[tuple[str, str]]:
    """What a call may taint: its command, and its session."""
    keys = [("command", call.name)]
    return [*keys, ("session", call.session_id)] if call.session_id else keys
