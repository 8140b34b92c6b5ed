"""The apps of a pool: its tools, its metrics and its dashboard, for other programs and for browsers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Unpack

from bridge_py.contract.peers import OpenTo
from snakepit_trio._calls.call import DEFAULT, Timeout
from snakepit_trio._util.background import Background
from snakepit_trio._util.ownership import require_trio
from snakepit_trio.errors import PoolClosed

if TYPE_CHECKING:
    from snakepit_trio._dashboard.app import DashboardApp
    from snakepit_trio._dashboard.monitor import Monitor
    from snakepit_trio._serving.http import HttpApp
    from snakepit_trio._serving.http_options import HttpOptions
    from snakepit_trio._serving.mcp_app import McpApp
    from snakepit_trio._serving.metrics_app import MetricsApp
    from snakepit_trio.telemetry.prometheus import PoolMetrics


class Apps:
    """The part of a pool that serves it to others. A pool without apps pays nothing for them."""

    def __init__(self) -> None:
        self._background = Background()
        self._monitor: Monitor | None = None
        self._metrics: PoolMetrics | None = None

    def asgi_app(self, **options: Unpack[HttpOptions]) -> HttpApp:
        """Make an ASGI app that serves the pool's tools over HTTP, while the pool is open, on trio.

        POST /tools/{name} runs a tool: JSON in and out, streams as server-sent events, errors as problem+json (RFC
        9457). A client that leaves stops its tool. GET has /tools, /openapi.json, /livez and /readyz. docs/http.md has
        the headers and statuses.

        `token` is what clients must send as `Authorization: Bearer`. `sessions=False` refuses the header Session-Id.
        `max_body_bytes` (8 MiB) is for a body. `max_timeout`, in seconds (3600), is for any call, and `max_priority`
        (0) for the header Call-Priority. `allowed_hosts` are the server's names in Host, "*" for any: by default those
        of loopback if the server listens there, else any. `allowed_origins` are sites whose pages may call.
        `keep_alive`, in seconds (15), is when a stream without events sends a comment.
        `metrics=True` adds GET /metrics, which serves `metrics` to Prometheus.

        Raises `UsageError` for an invalid option.
        """
        from snakepit_trio._serving.http import HttpApp

        return HttpApp(self._pool(), **options)

    def mcp_app(
        self,
        *,
        functions: Sequence[Callable[..., Any]] = (),
        tools: Sequence[str] | None = None,
        timeout: Timeout = DEFAULT,
        name: str | None = None,
        instructions: str | None = None,
        token: str | None = None,
        allowed_hosts: Sequence[str] | None = None,
        allowed_origins: Sequence[str] | None = None,
    ) -> McpApp:
        """Make an ASGI application that serves the pool's tools to agents, by the Model Context Protocol.

        It offers the workers' tools (only those that `tools` names), and `functions`, which workers run. `timeout`, in
        seconds, is for each call; by default it is as for `execute`. `name` and `instructions` tell agents what the
        server is for. With a `token`, only clients that send it as a bearer token are served. Requests must name one of
        `allowed_hosts` as their host, by default this machine's own names, which keeps off web pages that the user
        visits; `["*"]` allows all. `allowed_origins` are the web pages that may call it, as `"http://localhost:*"`; by
        default those of this machine, and with `allowed_hosts=["*"]` all.

        A call that its client cancels, or whose client goes away, is over only when its code has ended. Errors of
        tools, crashes and timeouts are results with `isError`. Needs `pip install 'snakepit-trio[mcp]'`; raises
        `UsageError` without it, and for a function that workers cannot import or call by names.
        """
        from snakepit_trio._serving.mcp_app import make_app

        return make_app(
            self._pool(), functions, tools, timeout, name, instructions, token, allowed_hosts, allowed_origins
        )

    @property
    def metrics(self) -> PoolMetrics:
        """The pool's metrics, for Prometheus. Histograms begin when this is first used.

        Needs `pip install 'snakepit-trio[prometheus]'`; raises `UsageError` without it.
        """
        if self._metrics is None:
            from .metrics import PoolSource, metrics_of

            pool = self._pool()
            source = PoolSource(pool.config.name, pool.get_stats, pool.workers, pool.sessions)
            self._metrics = metrics_of(source, pool._token, pool.events)
        return self._metrics

    def metrics_app(
        self, *, token: str | None = None, allowed_hosts: Sequence[str] = (), allowed_origins: Sequence[str] = ()
    ) -> MetricsApp:
        """Make an ASGI app that serves `metrics` to Prometheus, at each of its paths, on trio or asyncio.

        `token`, `allowed_hosts` and `allowed_origins` are as for `asgi_app`. Raises `UsageError` for an invalid option,
        and without prometheus-client.
        """
        from snakepit_trio._serving.metrics_app import MetricsApp

        return MetricsApp(self.metrics, token, allowed_hosts, allowed_origins)

    def dashboard_app(
        self,
        *,
        token: str | None = None,
        allowed_hosts: Sequence[str] = (),
        allowed_origins: Sequence[str] = (),
    ) -> DashboardApp:
        """Make an ASGI app with the pool's dashboard: one page that shows workers, calls and logs as they change.

        It can be mounted below any path, on trio. From now on the pool keeps five minutes of history for all its
        dashboards. Whoever has the `token` sees the names of tools and sessions and the log, and may cancel calls. It
        is made by chance if it is not given, and is the app's `token`. The page takes it from the end of its address,
        `#token=...`, or asks for it. `allowed_hosts` are the server's names in Host, "*" for any: by default those of
        loopback if the server listens there, else any. `allowed_origins` are the addresses that a proxy in front of the
        server has, as `"https://pools.example.org"`.

        Raises `UsageError` for an invalid option and outside of trio, and `PoolClosed`.
        """
        from snakepit_trio._dashboard.app import DashboardApp

        require_trio()
        return DashboardApp(self._pool(), self._get_monitor(), token, allowed_hosts, allowed_origins)

    def serve_dashboard(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        allowed_hosts: Sequence[str] = (),
        open_to: OpenTo = "user",
    ) -> AbstractAsyncContextManager[str]:
        """Serve the pool's dashboard during a block: `async with pool.serve_dashboard() as url`.

        `url` is the address of the page, with the token; show it to nobody else. Port 0 stands for any free port. By
        default only this machine reaches it, and connections of other users of this machine are closed;
        `open_to="machine"` takes them. `token` and `allowed_hosts` are as for `dashboard_app`. There is no TLS: where
        other machines are to reach it, put it behind a proxy, or use a tunnel.

        Entering the block is no checkpoint. Slow browsers hold up nothing. After the block, which may take a second
        longer, all connections are closed. Needs `pip install 'snakepit-trio[serve]'`; raises `UsageError` without
        it, and for an invalid option, `OSError` for an address that cannot be used, and `PoolClosed`.
        """
        from snakepit_trio._dashboard.server import serving

        app = self.dashboard_app(token=token, allowed_hosts=allowed_hosts)
        return serving(app, host, port, open_to)

    def _get_monitor(self) -> Monitor:
        from snakepit_trio._dashboard.monitor import Monitor

        if self._monitor is None:
            monitor = Monitor(self._pool())
            if not self._background.start(monitor.run):
                monitor.end()
                raise PoolClosed("the pool is closed: its block has been left")
            self._monitor = monitor
        return self._monitor

    def _pool(self) -> Any:
        return self  # a pool, which has this class for a part: to name its type here would be a circle
