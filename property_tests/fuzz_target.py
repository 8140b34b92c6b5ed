"""One way that bytes of others are read, for `fuzz`: valid messages that Hypothesis draws, and how they are broken."""

from __future__ import annotations

import random
import warnings
from abc import abstractmethod
from typing import Any, ClassVar, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .mutations import Mutations

Parts = tuple[bytes, ...]


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """Let Hypothesis draw so many values. The same number gives the same values."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: Any) -> None:
        found.append(value)

    keep()
    return found


class Target:
    """One way that bytes of others are read. `number` says which valid messages are drawn."""

    errors: ClassVar[tuple[type[Exception], ...]]
    tokens: ClassVar[list[bytes]] = []

    def __init__(self, number: int, count: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._valid = self.valid(number, count)
        pieces = [part for parts in self._valid for part in parts]
        self._mutations = Mutations([*self.tokens, *_TEXTS], pieces)

    @abstractmethod
    def valid(self, number: int, count: int) -> list[Parts]:
        """Draw valid messages. Each may have several parts, as a body and the area beside it."""

    @abstractmethod
    def read(self, parts: Parts, chance: random.Random) -> None:
        """Read a message as the code that gets it would."""

    def broken(self, chance: random.Random) -> Parts:
        """Make one input: a valid message, of which one or all parts are changed."""
        parts = chance.choice(self._valid)
        changed = chance.randrange(len(parts)) if chance.random() < 0.8 else None
        return tuple(
            self._mutations.changed(chance, part) if changed in (None, index) else part
            for index, part in enumerate(parts)
        )


_TEXTS: Final = [b"", b"\0" * 8, b"\xff" * 8, b"\xed\xa0\x80", "\u2028\x1b[2J".encode(), b"9" * 5_000, b"1e999", b"NaN"]
