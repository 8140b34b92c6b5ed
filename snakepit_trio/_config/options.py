"""The settings of a pool by name, for editors and type checkers: the types that callers may give."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from bridge_py import BaseAdapter
from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.store import SessionStore

from .adapters import Adapter
from .config import Launcher
from .limits import Limits
from .policies import Affinity, RecyclePolicy, RetryPolicy
from .worker_options import WorkerOptions

#: Everything that names an adapter: `"package.module:Class"`, `"path/to/file.py:Class"`, the class, an `Adapter`, or
#: the name of one that another package offers.
AdapterLike = str | type[BaseAdapter] | Adapter


class FurtherOptions(TypedDict, total=False):
    """All settings of a pool except its adapter, for which functions that open pools have a parameter of its own."""

    pickle: bool
    initializer: Callable[..., object] | None
    initargs: Sequence[Any]
    workers: int | tuple[int, int]
    scale_up_after: float
    idle_timeout: float
    spares: int
    concurrency: int
    options: Mapping[str, Any]
    env: Mapping[str, str] | None
    template: bool | Sequence[str]
    codecs: Sequence[str]
    resources: Mapping[str, float]
    per_worker: Callable[[int], WorkerOptions] | None
    cwd: str | os.PathLike[str] | None
    umask: int | None
    python: str | os.PathLike[str]
    name: str | None
    start_timeout: float
    cancel_grace: float
    shutdown_timeout: float
    max_frame_bytes: int
    buffer_threshold: int
    max_buffer_bytes: int
    shared_memory: int
    compress_from: int | None
    lane: bool
    stream_window: int
    send_ahead: int
    ping_interval: float
    ping_timeout: float
    missed_pings: int
    allow_debugger: bool
    debug: bool | Literal["post-mortem"]
    max_restarts: int
    restart_period: float
    quarantine: float
    recycle: RecyclePolicy
    retry: RetryPolicy
    taint_after: int
    taint_period: float
    max_queue: int | None
    max_queue_bytes: int | None
    affinity: Affinity
    affinity_sessions: int
    limits: Limits | None
    threads: int | None
    store: SessionStore | str | None
    quotas: Quotas
    session_ttl: float
    cleanup_interval: float
    launcher: Launcher | str | None
    bridge_server: bool | str
    bridge_token: str | None
    bridge_tls: ssl.SSLContext | None
    allow_pickle: bool
    open_to: Literal["user", "machine"]
    host_threads: int
    max_asks: int
    max_unread_bytes: int
    stderr_lines: int
    log_level: int | str


class PoolOptions(FurtherOptions, total=False):
    """The settings of a pool, by name and with the types that callers may give; any of them may be left out.

    `open_pool` and all functions that open pools take them as keyword arguments. A function of your own that passes
    them on takes `**options: Unpack[PoolOptions]`. The fields of `PoolConfig` have the same names, and tell what each
    means, its unit and its default.
    """

    adapter: AdapterLike | None
