"""The live view of `snakepit top`."""

from __future__ import annotations

import signal

import click
import trio
from rich.console import Console, Group

from .hosts import NoPool
from .samples import Sample, Sampler
from .screen import Screen, raw_keys, until_key
from .top_view import lines_of


async def show(sampler: Sampler, console: Console, interval: float) -> int:
    """Show the pools until somebody types q, or there are none any more. Returns the exit code. Raises `NoPool`."""
    samples: list[Sample] = await sampler.sample()
    screen = Screen(console, lambda height: Group(*lines_of(samples, height)))
    is_over = False
    left_by: signal.Signals | None = None

    async def look() -> None:
        nonlocal samples, is_over
        try:
            while True:
                await trio.sleep(interval)
                samples = await sampler.sample()
                screen.refresh()
        except NoPool:
            is_over = True
            nursery.cancel_scope.cancel()

    async def leave_at_key() -> None:
        await until_key(b"q")
        nursery.cancel_scope.cancel()

    with raw_keys(), screen.shown():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            nursery.start_soon(leave_at_key)
            left_by = await screen.follow(signal.SIGTERM, signal.SIGHUP)
            nursery.cancel_scope.cancel()
    if is_over:
        click.echo("the pools that were shown have closed")
    return 0 if left_by is None else 128 + left_by
