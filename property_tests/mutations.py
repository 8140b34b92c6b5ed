"""Changes bytes at random, as a fuzzer does: flips, cuts, repeats and splices, numbers at a limit, and tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

_NUMBERS: Final = [
    *(0, 1, 2, 5, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**33, 2**40, 2**53, 2**61 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
]
_LONGEST: Final = 100_000  # bytes; repeats may not grow an input beyond this
_HOW_MANY: Final = (1, 1, 1, 2, 2, 4, 8)


class Mutations:
    """Changes of bytes. `tokens` are bytes that mean something in the format, `others` valid inputs to splice with."""

    def __init__(self, tokens: Sequence[bytes], others: Sequence[bytes]) -> None:
        self._tokens = tokens
        self._others = others
        self._ways: list[Callable[[random.Random, bytearray, int], None]] = [
            *(_flip, _flip, _put_number, _put_number, _cut, _remove, _repeat, _move),
            *(self._insert, self._overwrite, self._splice),
        ]

    def changed(self, chance: random.Random, data: bytes) -> bytes:
        """Return other bytes, made from these by one to eight changes."""
        found = bytearray(data)
        for _ in range(chance.choice(_HOW_MANY)):
            chance.choice(self._ways)(chance, found, chance.randrange(len(found) + 1))
        return bytes(found)

    def _insert(self, chance: random.Random, data: bytearray, at: int) -> None:
        data[at:at] = chance.choice(self._tokens)

    def _overwrite(self, chance: random.Random, data: bytearray, at: int) -> None:
        token = chance.choice(self._tokens)
        data[at : at + len(token)] = token

    def _splice(self, chance: random.Random, data: bytearray, at: int) -> None:
        other = chance.choice(self._others)
        begin = chance.randrange(len(other) + 1)
        data[at : chance.randrange(at, len(data) + 1)] = other[begin : chance.randrange(begin, len(other) + 1)]


def _flip(chance: random.Random, data: bytearray, at: int) -> None:
    if at < len(data):
        data[at] ^= chance.choice((1 << chance.randrange(8), chance.randrange(1, 256)))


def _put_number(chance: random.Random, data: bytearray, at: int) -> None:
    size = chance.choice((1, 1, 2, 4, 8))
    number = chance.choice(_NUMBERS) + chance.choice((-1, 0, 0, 1))
    data[at : at + size] = (number % 256**size).to_bytes(size, chance.choice(("big", "little")))


def _cut(_chance: random.Random, data: bytearray, at: int) -> None:
    del data[at:]


def _remove(chance: random.Random, data: bytearray, at: int) -> None:
    del data[at : at + chance.choice((1, 1, 2, 4, 8, 64))]


def _repeat(chance: random.Random, data: bytearray, at: int) -> None:
    piece = data[at : at + chance.choice((1, 2, 4, 16, 64))]
    times = chance.choice((1, 1, 2, 10, 100, 2_000))
    if len(data) + len(piece) * times <= _LONGEST:
        data[at:at] = piece * times


def _move(chance: random.Random, data: bytearray, at: int) -> None:
    size = chance.choice((1, 4, 16))
    piece = data[at : at + size]
    del data[at : at + size]
    to = chance.randrange(len(data) + 1)
    data[to:to] = piece
