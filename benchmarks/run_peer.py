"""Measures one peer in a process of its own: `python -m benchmarks.run_peer NAME FIGURE SCALE` prints JSON.

Workers of multiprocessing import this module again while they start. So it imports nothing until it runs.
"""

from __future__ import annotations


def main() -> None:
    """Measure what the command line names."""
    import json
    import sys

    from .figures import FIGURES
    from .peers import PEERS

    name, figure, scale = sys.argv[1:]
    peer = PEERS[name]

    async def run() -> dict[str, float]:
        return await FIGURES[figure](peer, float(scale))

    print(json.dumps(peer.run(run)))


if __name__ == "__main__":
    main()
