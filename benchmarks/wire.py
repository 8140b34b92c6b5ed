"""`python -m benchmarks.wire`: microseconds to encode and decode a frame.

Generated messages, our own codec for the same bytes, and the frames of a lane.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bridge_py.wire.frames import Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.messages.snakepit import bridge
from bridge_py.wire.packed import PACKED

FRAMES = 64
ROUNDS = 15


def main() -> None:
    """Measure all three in turn, and print medians."""
    ours = [Frame(Kind.CALL, 2 * n + 1, "empty", "", 30_000_000, b"x" * 110) for n in range(FRAMES)]
    theirs = [
        bridge.Frame(call_id=f.call_id, kind=bridge.Kind.CALL, name=f.name, number=f.number, body=f.body) for f in ours
    ]
    data = encode_batch(ours)
    assert data == bytes(bridge.Batch(frames=theirs))
    packed = PACKED.join(list(map(PACKED.encode, ours)))
    ways: dict[str, list[Callable[[], object]]] = {
        "encode": [
            lambda: bytes(bridge.Batch(frames=theirs)),
            lambda: encode_batch(ours),
            lambda: PACKED.join(list(map(PACKED.encode, ours))),
        ],
        "decode": [
            lambda: bridge.Batch.parse(data),
            lambda: decode_batch(data),
            lambda: PACKED.decode(packed, None, None),
        ],
    }
    for name, functions in ways.items():
        rounds = [[_time(function) for function in functions] for _ in range(ROUNDS)]
        generated, own, lane = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name}: generated {generated:.2f} us, own {own:.2f} us, of a lane {lane:.2f} us a frame")


def _time(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(10):
        function()
    return (time.perf_counter() - began) / 10 / FRAMES * 1e6


if __name__ == "__main__":
    main()
