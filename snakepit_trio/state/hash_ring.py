"""Which host has which session, when several hosts share a store: consistent hashing."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect
from collections.abc import Iterable, Mapping
from typing import Final

from bridge_py.wire.errors import UsageError

_POINTS: Final = 160  # of a host of weight 1: shares differ by a tenth
_HEAVIEST: Final = 100.0


class HashRing:
    """Spreads session ids over named hosts: `HashRing(["host-a", "host-b"]).of(session_id)` names one of them.

    Every process finds the same host for an id, with every version of Python, whatever the order of the names. If a
    host is added, sessions move to that host only. If a host is taken out, only its sessions move. `hosts` are names,
    or names with weights: a host of weight 2 gets twice as many sessions as one of weight 1. Raises `UsageError` if
    there is no host, a name is no text or comes twice, or a weight is not above 0 and at most 100.
    """

    def __init__(self, hosts: Iterable[str] | Mapping[str, float]) -> None:
        weights = hosts if isinstance(hosts, Mapping) else _equal(hosts)
        points = sorted((_place(f"{name}\0{number}"), name) for name in weights for number in _numbers(name, weights))
        if not points:
            raise UsageError("a HashRing has no hosts: give at least one name")
        self._hosts = tuple(sorted(weights))
        self._places = [place for place, _ in points]
        self._names = [name for _, name in points]

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts, in the order of the alphabet."""
        return self._hosts

    def of(self, session_id: str) -> str:
        """The name of the host that has a session. Raises `UsageError` if the id is no text."""
        if not isinstance(session_id, str):
            raise UsageError(f"session_id={session_id!r:.200} is no text: give the id of a session")
        return self._names[bisect(self._places, _place(session_id)) % len(self._names)]

    def __repr__(self) -> str:
        return f"HashRing({list(self._hosts)})"


def _equal(hosts: Iterable[str]) -> dict[str, float]:
    if isinstance(hosts, str):
        raise UsageError(f"hosts={hosts!r} is one text: give a list of names")
    names = list(hosts)
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"host {twice[0]!r} comes twice: give each host a name of its own")
    return dict.fromkeys(names, 1.0)


def _numbers(name: object, weights: Mapping[str, float]) -> range:
    if not isinstance(name, str):
        raise UsageError(f"host {name!r:.200} is no name, which is a text")
    weight = weights[name]
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= _HEAVIEST:
        raise UsageError(f"the weight of host {name!r} is {weight!r}: give a number above 0, and up to {_HEAVIEST:g}")
    return range(math.ceil(weight * _POINTS))


def _place(text: str) -> int:
    # Not `hash`, which differs from process to process. Lone surrogates get a place as well.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
