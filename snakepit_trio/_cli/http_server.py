"""`snakepit serve`: a pool, and hypercorn in front of it, from their start to their end."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config

import snakepit_trio as snakepit
from bridge_py.contract.peers import OpenTo, why_no_client
from snakepit_trio._serving.http import HttpApp
from snakepit_trio._serving.http_options import HttpSettings
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery

from .servers import say

_FAREWELL: Final = 2.0  # seconds in which clients may read that their call was stopped
_BACKLOG: Final = 128
logger = get_logger("snakepit.serve")


@attrs.frozen(kw_only=True)
class Plan:
    """What to serve, and how. `grace` is in seconds."""

    adapter: str
    host: str
    port: int
    workers: int | None
    concurrency: int | None
    token: str | None = attrs.field(repr=False)
    open_to: OpenTo
    hosts: tuple[str, ...]
    certfile: Path | None
    keyfile: Path | None
    grace: float
    watched: tuple[Path, ...]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(plan: Plan) -> None:
    """Serve until SIGINT or SIGTERM. Raises `UsageError`, `WorkerStartError` and `OSError` if it cannot start."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Before the workers start: a token that is too short and an address in use are told at once.
    HttpSettings(token=plan.token, allowed_hosts=plan.hosts)
    with _listen(plan.host, plan.port) as listening:
        trio.run(_main, plan, listening)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise OSError(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    except OSError as error:
        raise OSError(f"cannot listen at {host}, port {port}: {os.strerror(error.errno or 0)}") from error


class _Ending:
    """The end that signals ask for. A second signal does not wait for running calls."""

    def __init__(self) -> None:
        self.requested = trio.Event()
        self.grace = trio.CancelScope()
        self.opening = trio.CancelScope()
        self.is_open = False

    async def watch(self, signals: AsyncIterable[int]) -> None:
        """Follow the signals."""
        async for _ in signals:
            if self.requested.is_set():
                self.grace.cancel()
            self.requested.set()
            if not self.is_open:
                self.opening.cancel()


async def _main(plan: Plan, listening: socket.socket) -> None:
    ending = _Ending()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with background_nursery() as nursery:
            nursery.start_soon(ending.watch, signals)
            with ending.opening:
                async with snakepit.open_pool(plan.adapter, **_options(plan)) as pool:
                    ending.is_open = True
                    await _serve(plan, pool, listening, ending)


def _options(plan: Plan) -> dict[str, Any]:
    given = {"workers": plan.workers, "concurrency": plan.concurrency}
    return {name: value for name, value in given.items() if value is not None}


async def _serve(plan: Plan, pool: snakepit.Pool, listening: socket.socket, ending: _Ending) -> None:
    has_metrics = importlib.util.find_spec("prometheus_client") is not None
    app = pool.asgi_app(token=plan.token, allowed_hosts=plan.hosts, metrics=has_metrics)
    over = trio.Event()
    with guarded_connections(plan.open_to) as streams:
        async with background_nursery() as nursery:
            urls = await nursery.start(_run_hypercorn, app, _config(plan, listening), ending, over)
            if plan.watched:
                from .reloading import reload_on_changes

                nursery.start_soon(reload_on_changes, pool, plan.watched, ending.requested)
            say(f"snakepit serves {plan.adapter} at {' '.join(urls)}, workers: {pool.workers.count()}")
            await ending.requested.wait()
            app.close()
            await _end(app, plan.grace, ending, over, streams)


async def _run_hypercorn(  # noqa: ASYNC128 - hypercorn tells when it has started
    app: HttpApp,
    config: Config,
    ending: _Ending,
    over: trio.Event,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    try:
        serve = partial(hypercorn.trio.serve, shutdown_trigger=ending.requested.wait, mode="asgi")
        await serve(app, config, task_status=task_status)  # type: ignore[arg-type]  # hypercorn has types of its own for messages
    finally:
        over.set()


async def _end(
    app: HttpApp, grace: float, ending: _Ending, over: trio.Event, streams: set[trio.abc.AsyncResource]
) -> None:
    """Wait for running calls, then end those that are left, then close the connections of clients that do not read."""
    with ending.grace:
        ending.grace.deadline = trio.current_time() + grace
        await over.wait()
    app.stop_calls()
    with trio.move_on_after(_FAREWELL):
        await over.wait()
    for stream in list(streams):
        await trio.aclose_forcefully(stream)


def _config(plan: Plan, listening: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.worker_class = "trio"
    config.errorlog = logging.getLogger("hypercorn.error")
    config.loglevel = "WARNING"
    config.include_server_header = False
    # Ours come first; this is for connections without a call.
    config.graceful_timeout = plan.grace + 2 * _FAREWELL
    if plan.certfile is not None and plan.keyfile is not None:
        config.certfile, config.keyfile = str(plan.certfile), str(plan.keyfile)
    return config


@contextmanager
def guarded_connections(open_to: OpenTo = "machine") -> Iterator[set[trio.abc.AsyncResource]]:
    """Keep what a client does to its own connection; yields the streams of all open connections.

    hypercorn runs its connections in one nursery, and some errors of its protocols come out of them, such as that of a
    path of HTTP/2 that is not ASCII. Each would end the server. It also waits, shielded, for clients that do not read.
    With `open_to="user"`, connections of other users of this machine are closed before anything is read from them.
    """
    hypercorn_run: Any = importlib.import_module("hypercorn.trio.run")
    before = hypercorn_run.TCPServer
    streams: set[trio.abc.AsyncResource] = set()

    class Connection(before):  # type: ignore[valid-type, misc]  # mypy does not know the class
        async def run(self) -> None:
            streams.add(self.stream)
            try:
                if open_to == "user" and (why := _why_no_client(self.stream)) is not None:
                    logger.warning("a connection was refused: %s (--open-to machine lets every user call)", why)
                    await trio.aclose_forcefully(self.stream)
                else:
                    await super().run()
            except Exception as error:
                logger.warning("a connection was closed, because its client broke the protocol: %r", error)
            finally:
                streams.discard(self.stream)

    hypercorn_run.TCPServer = Connection
    try:
        yield streams
    finally:
        hypercorn_run.TCPServer = before


def _why_no_client(stream: Any) -> str | None:
    connection = getattr(stream, "transport_stream", stream).socket
    return why_no_client(connection, takes_other_machines=True)
