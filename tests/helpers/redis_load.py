"""A host program that updates a session in Redis all the time, and tells of each update that was acknowledged.

    python -m tests.helpers.redis_load NAME REPLICAS URL...

Each task counts in a variable of its own and in one that all share. It says "ACK" for each update, and at the end of
its stdin, as JSON by the name of each variable: how many updates were acknowledged, and how many may have been made.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence

import trio

import snakepit_trio as snakepit
from snakepit_trio.state.redis import RedisStore

SESSION = "counted"
SHARED = "shared"
TASKS = 3


async def count(store: RedisStore, name: str, acknowledged: Counter[str], unsure: Counter[str]) -> None:
    def change(session: snakepit.Session) -> None:
        for each in (name, SHARED):
            session.update(each, session.get(each).value + 1)

    while True:
        try:
            await store.update_session(SESSION, change)
        except snakepit.StoreUnavailable as error:
            unsure[name] += "Nobody knows" in str(error)
        else:
            acknowledged[name] += 1
            print("ACK", flush=True)
        await trio.sleep(0.005)


async def main(args: Sequence[str]) -> None:
    name, replicas, *urls = args
    acknowledged: Counter[str] = Counter()
    unsure: Counter[str] = Counter()
    names = [f"{name}{number}" for number in range(TASKS)]
    async with RedisStore(*urls, timeout=2, replicas=int(replicas)) as store:
        for each in names:
            await store.of(SESSION).register_variable(each, "integer", 0)
        async with trio.open_nursery() as nursery:
            for each in names:
                nursery.start_soon(count, store, each, acknowledged, unsure)
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()
    print(json.dumps({each: [acknowledged[each], unsure[each]] for each in names}), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
