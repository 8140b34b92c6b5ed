"""Bodies of large messages that take long to read, each in its own way."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

MEGABYTES = 4
_pack = msgspec.msgpack.encode


def _repeated(item: bytes, size: int) -> bytes:
    count = size // len(item)
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def _map(pairs: bytes, count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big") + pairs


BODIES: dict[str, Callable[[int], bytes]] = {
    "int_keys": lambda size: _repeated(_pack({1: 2, 3: 4}), size),
    "text_keys": lambda size: _repeated(_pack({"a": 2, "bb": 4}), size),
    "mixed_keys": lambda size: _repeated(_pack({"a": 2, 2: 4}), size),
    "bytes": lambda size: _repeated(_pack({"a": b"12", 2: 4}), size),
    "hundreds": lambda size: _repeated(_pack(dict.fromkeys(range(100))), size),
    "lists": lambda size: _repeated(_pack([[1], [2]]), size),
    "ints": lambda size: _repeated(b"\x01", size),
    "floats": lambda size: _repeated(_pack(1 / 3), size),
    "text": lambda size: _pack("é" * (size // 2)),
    "one_map": lambda size: _map(b"".join(_pack(n) + b"\x01" for n in range(size // 6)), size // 6),
    "one_map_of_texts": lambda size: _map(b"".join(_pack(str(n)) + b"\x01" for n in range(size // 8)), size // 8),
    "extensions": lambda size: _repeated(_pack(msgspec.msgpack.Ext(1, b"\x7f" * 9)), size),
    "tuple": lambda size: _pack(msgspec.msgpack.Ext(24, _repeated(_pack({1: 2, 3: 4}), size))),
    "nested": lambda size: b"\x92" * 100 + _repeated(_pack({1: 2}), size) + b"\xc0" * 100,
}


def body(kind: str, megabytes: int = MEGABYTES) -> bytes:
    """A body of that kind and size."""
    return BODIES[kind](megabytes * 1_000_000)
