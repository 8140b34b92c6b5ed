"""`python -m benchmarks.wire`: microseconds to encode and decode a frame, generated messages against our own codec."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bridge_py.wire.frames import Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.messages.snakepit import bridge

FRAMES = 64
ROUNDS = 15


def main() -> None:
    """Measure both in turn, print medians and their ratio."""
    ours = [Frame(Kind.CALL, 2 * n + 1, "empty", "", 30_000_000, b"x" * 110) for n in range(FRAMES)]
    theirs = [
        bridge.Frame(call_id=f.call_id, kind=bridge.Kind.CALL, name=f.name, number=f.number, body=f.body) for f in ours
    ]
    data = encode_batch(ours)
    assert data == bytes(bridge.Batch(frames=theirs))
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "encode": (lambda: encode_batch(ours), lambda: bytes(bridge.Batch(frames=theirs))),
        "decode": (lambda: decode_batch(data), lambda: bridge.Batch.parse(data)),
    }
    for name, (mine, generated) in pairs.items():
        rounds = [(_time(mine), _time(generated)) for _ in range(ROUNDS)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        print(
            f"{name}: own {medians[0]:.2f} us, generated {medians[1]:.2f} us a frame, {medians[1] / medians[0]:.1f} x"
        )


def _time(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(10):
        function()
    return (time.perf_counter() - began) / 10 / FRAMES * 1e6


if __name__ == "__main__":
    main()
