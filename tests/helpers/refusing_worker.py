"""A foreign worker that refuses its first requests, and leaves its first connections. Run as a script."""

from __future__ import annotations

import asyncio

from http2_peer import Peer, serve  # type: ignore[import-not-found]  # beside this script


async def main() -> None:
    peer = Peer(limit=2, refusals=7)
    peer.leaves_before = 3
    async with serve(peer) as port:
        print(f"GRPC_READY:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
