"""A pool's configuration: one validated class, and its launcher."""

from __future__ import annotations

import logging
import math
import os
import re
import ssl
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import attrs
import trio

from bridge_py import BaseAdapter
from bridge_py.buffers.buffer_sets import Sizes
from bridge_py.buffers.compression import is_available
from bridge_py.contract.credentials import check_tls, check_token
from bridge_py.tools import pickling
from bridge_py.tools.pickling import OF_HOST, PLAIN
from bridge_py.wire.codec import BESIDE_BYTES
from bridge_py.wire.conversation import MAX_FRAME_BYTES
from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install
from snakepit_trio._util.validation import (
    MOST_LEVEL,
    environment,
    instance,
    is_whole,
    name,
    path,
    refuse,
    seconds,
    to_level,
    whole,
    word,
)
from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.store import DEFAULT_TTL, SessionStore

from . import plugins
from .adapters import Adapter, GrpcPython, what_to_give
from .limits import Limits, check_quotas, share_of_cores
from .policies import Affinity, Bounds, RecyclePolicy, RetryPolicy, bounds_of
from .settings_file import default_adapter
from .targets import call_of, place_of
from .template_checks import check_template, has_templates, to_template
from .worker_options import OptionsByNumber, WorkerOptions, check_options, to_env, to_options, to_resources

if TYPE_CHECKING:
    from pathlib import Path

    from snakepit_trio._connections.base import WorkerProcess
    from snakepit_trio._util.asyncio_loop import AsyncioLoop

#: A name that a package offers; others have a module, or a file, and a class.
_PLUGIN: Final = re.compile(r"[A-Za-z0-9_-]+")
LANE_VARIABLE: Final = "SNAKEPIT_LANE"
_ASKS: Final = 1_000


def _count(default: int, least: int = 1, most: int | None = None) -> Any:
    return attrs.field(default=default, validator=whole(least, most))


def _has_lane() -> bool:
    return os.environ.get(LANE_VARIABLE) != "0"


def _threads() -> Any:
    share: Any = attrs.Factory(lambda self: share_of_cores(self.workers), takes_self=True)
    return attrs.field(default=share, validator=whole(1, or_none="what they choose themselves"))


def _asks() -> Any:
    most: Any = attrs.Factory(lambda self: _asks_of(self.concurrency), takes_self=True)
    return attrs.field(default=most, validator=whole(1))


def _asks_of(concurrency: object) -> int:
    return max(_ASKS, 10 * concurrency) if is_whole(concurrency) else _ASKS  # its own validator reports other values


def _seconds(default: float) -> Any:
    return attrs.field(default=default, validator=seconds())


def _check_workers(_config: object, _field: object, workers: object) -> None:
    bounds_of(workers)


def _is(kind: type) -> Any:
    return instance(kind, remedy=f"give a snakepit_trio.{kind.__name__}")


def _is_or_none(kind: type, none: str) -> Any:
    return instance(kind, type(None), remedy=f"give a snakepit_trio.{kind.__name__}, or None for {none}")


def _to_bound(bound: float | None) -> float:
    return math.inf if bound is None else bound


def _check_bound(_config: object, field: attrs.Attribute[Any], bound: object) -> None:
    if bound != math.inf and (not is_whole(bound) or bound < 0):
        raise refuse(field.name, bound, "give a number of calls from 0 on, or None for no bound")


def _has_zstd(_config: object, _field: object, size: int | None) -> None:
    if size is not None and not is_available():
        raise UsageError(f"compress_from takes the zstandard package: {install('zstd')}")


def _to_adapter(adapter: object) -> Adapter:
    if adapter is None:
        adapter = default_adapter()
    if isinstance(adapter, str):
        if not (_PLUGIN.fullmatch(adapter) and plugins.installed("adapter")):
            return GrpcPython(adapter)
        adapter = plugins.load("adapter", adapter)
    if isinstance(adapter, type) and issubclass(adapter, BaseAdapter):
        place = place_of(adapter.__module__, f"adapter {adapter.__qualname__}")
        return GrpcPython(f"{place}:{adapter.__qualname__}", adapter)
    if isinstance(adapter, Adapter):
        return adapter
    raise UsageError(f"adapter {adapter!r:.200}: {what_to_give(adapter)}")


def _to_store(store: Any) -> Any:
    return plugins.load_instance("store", store, SessionStore) if isinstance(store, str) else store


def _to_launcher(launcher: Any) -> Any:
    return plugins.load_instance("launcher", launcher, Launcher) if isinstance(launcher, str) else launcher


def _codec_modules() -> Any:
    return attrs.Factory(lambda self: tuple(map(plugins.module_of_codec, self.codecs)), takes_self=True)


def _check_options(config: PoolConfig, _attribute: object, options: Any) -> None:
    check_options(config.adapter, options)


def _check_per_worker(_config: PoolConfig, _attribute: object, function: Any) -> None:
    if function is not None and not callable(function):
        raise refuse("per_worker", function, "give a function of the worker's number that returns WorkerOptions")


def _options_by_number() -> Any:
    made: Any = attrs.Factory(
        lambda self: OptionsByNumber(self.per_worker, self.adapter, self.resources, forks=self.template is not False),
        takes_self=True,
    )
    return attrs.field(init=False, default=made, repr=False, eq=False)


def _first_call(config: PoolConfig) -> bytes:
    _can_pickle(config, None, config.pickle)  # its validator runs after this
    args = config.initargs
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise UsageError(f"initargs={args!r:.100}: give a tuple of the initializer's arguments")
    if config.initializer is not None and config.adapter.protocol != "link":
        raise UsageError(
            f"initializer= is a function, and workers of {config.adapter!r} have tools, and no functions: leave it out"
        )
    if config.initializer is not None:
        return call_of(config.initializer, args, OF_HOST if config.pickle else PLAIN)
    if args:
        raise UsageError("initargs= is for initializer=, which is missing: give both, or neither")
    return b""


def _can_pickle(config: PoolConfig, _attribute: object, value: Any) -> None:
    if not isinstance(value, bool):
        raise refuse("pickle", value, "give True or False")
    if value and config.adapter.protocol != "link":
        raise UsageError(
            f"pickle=True is for functions, and workers of {config.adapter!r} have tools, and no functions: leave it"
            " out"
        )
    if value and not pickling.is_available():
        raise UsageError(f"pickle=True takes the cloudpickle package: {install('pickle')}")


def _check_debug(config: PoolConfig, _attribute: object, debug: object) -> None:
    if not isinstance(debug, bool) and debug != "post-mortem":
        raise refuse("debug", debug, "give True, False or 'post-mortem'")
    if debug and config.adapter.protocol != "link":
        raise UsageError(f"debug= is for adapters that are Python classes: leave it out with {config.adapter!r}")


def _check_token(config: PoolConfig, field: attrs.Attribute[Any], token: object) -> None:
    check_token(field.name, token)
    _is_for_bridge(config, field.name, token)


def _check_tls(config: PoolConfig, field: attrs.Attribute[Any], context: object) -> None:
    check_tls(field.name, context, server=True)
    _is_for_bridge(config, field.name, context)


def _is_for_bridge(config: PoolConfig, name: str, value: object) -> None:
    if value is not None and not config.bridge_server:
        raise UsageError(f"{name}= is for bridge_server=, which is missing: give both, or neither")


def _to_name(name: object) -> Any:
    return "pool" if name is None else name


def _to_python(python: object) -> Any:
    return os.fspath(python) if isinstance(python, os.PathLike) else python


class Site(ABC):
    """The part of a launcher that belongs to one pool, from the pool's opening to its end."""

    #: Whether nothing may run in threads, and nothing is shared with workers except through the link.
    runs_inline = False
    #: Whether workers run on this machine, so that `cwd` and `python` are paths of this machine.
    is_here = True
    #: Starts under way at a time: enough to keep all cores busy, and few enough that no start comes near its timeout.
    starts_at_once = max(32, 8 * (os.cpu_count() or 1))

    def clock(self) -> float:
        """Unix time in seconds, for sessions and their expiry."""
        return time.time()

    def check_room(self, workers: int) -> None:
        """Raise `UsageError` for more workers than this site can hold."""

    @property
    def folder(self) -> Path | None:
        """The folder of the pool's files, closed to other users; None if the pool has no files."""
        return None

    @property
    @abstractmethod
    def loop(self) -> AsyncioLoop:
        """The asyncio loop of the pool's connections, which runs as long as `run` does."""

    @abstractmethod
    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the services that workers need, until cancelled. Workers are launched and ended while this runs."""

    @abstractmethod
    async def launch(self, worker_id: str, number: int) -> WorkerProcess:
        """Start a worker; returns before it is ready. Raises `OSError`.

        `number` is the worker's number. `PoolConfig.worker_options.of(number)` is what differs for it.
        """

    def renew_template(self) -> None:
        """Have the workers that start from now on import their modules anew.

        Without `PoolConfig.template`, each worker does that by itself, and this does nothing. The workers that live go
        on. Call it while `run` runs.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the site holds: the pool has ended, or has never begun."""


class Launcher(ABC):
    """Where the workers of pools run. One launcher serves any number of pools."""

    #: Whether it can fork workers from a template: see `PoolConfig.template`.
    has_templates: ClassVar[bool] = False

    @abstractmethod
    def open(self, config: PoolConfig) -> Site:
        """Make the site of a pool. Raises `UsageError` for a configuration that this launcher cannot serve."""


@attrs.frozen(kw_only=True)
class PoolConfig:
    """The settings of a pool, as `open_pool` takes them. Times are in seconds, sizes in bytes."""

    #: Which tools the workers have: `"package.module:Class"`, `"path/to/file.py:Class"`, the class, or an Adapter.
    adapter: Adapter = attrs.field(default=None, converter=_to_adapter)
    #: Worker processes: their number, or the least and the most of an autoscaled pool, as `(2, 8)`.
    workers: int | tuple[int, int] = attrs.field(default=2, validator=_check_workers)
    #: An autoscaled pool starts more workers when calls have waited for a free worker for this time without a break.
    scale_up_after: float = _seconds(1.0)
    #: An autoscaled pool ends a worker that has had no call for this time.
    idle_timeout: float = _seconds(60.0)
    #: Further workers that are started, and wait to step in at once for a worker that dies or is replaced.
    spares: int = _count(0, 0)
    #: Calls that one worker runs at a time.
    concurrency: int = _count(1, 1, 100_000)
    #: Whether what the codec cannot send is pickled, by cloudpickle: lambdas, functions and classes that no module has,
    #: and all other objects, as arguments, results and exceptions of `run`, `iterate` and `map`. A pickle runs code
    #: where it is read, so workers can then do to this process what they like. Host and workers must run the same
    #: version of Python.
    pickle: bool = attrs.field(default=False, validator=_can_pickle)
    #: A function that each worker calls once when it starts, and again each worker that replaces one, before it takes
    #: calls. If it raises, the worker cannot start. `initargs` are its arguments, as they are when the pool is opened.
    initializer: Callable[..., object] | None = None
    initargs: Sequence[Any] = ()
    #: That call, as a worker reads it; empty if there is none.
    first_call: bytes = attrs.field(init=False, default=attrs.Factory(_first_call, takes_self=True), repr=False)
    #: Keyword arguments for the adapter class, where that is a Python class: plain JSON values by name.
    options: Mapping[str, Any] = attrs.field(factory=dict, converter=to_options, validator=_check_options)
    #: Environment variables of the workers, on top of this process's own.
    env: Mapping[str, str] | None = attrs.field(default=None, converter=to_env, validator=environment)
    #: Whether workers are forked from a template: a process that imports the adapter's module once. A list of names is
    #: what it imports besides: `["sklearn.svm", "myapp.models"]`. Workers start sooner and share the memory of what is
    #: imported. Adapters' instances and `setup` are each worker's own. Linux only; see docs/workers.md for what must
    #: not happen in these imports.
    template: bool | Sequence[str] = attrs.field(default=False, converter=to_template, validator=check_template)
    #: Names of codecs that other packages offer, for this process and its workers. The packages must be installed in
    #: both environments. docs/plugins.md.
    codecs: Sequence[str] = attrs.field(default=(), converter=plugins.to_names)
    #: The modules that register them.
    codec_modules: Sequence[str] = attrs.field(init=False, default=_codec_modules(), repr=False, eq=False)
    #: Amounts of resources that each worker offers to its calls, such as `{"gpu": 1}`: numbers from 0 on, with up to
    #: three decimals. `per_worker` can name others. A call that needs some runs only where enough is left. With
    #: resources, a worker that replaces another starts only when the other has ended.
    resources: Mapping[str, float] = attrs.field(factory=dict, converter=to_resources)
    #: What differs for each worker: a function of its number, from 0 to `workers` - 1, or to the most of an autoscaled
    #: pool. When the pool opens, the function is called once for each number, before any worker starts; for further
    #: workers, before they start. The worker that replaces another has the same number and options, and starts only
    #: when the other has ended. Spares have numbers of their own, the next `spares` ones, and keep them when they step
    #: in.
    per_worker: Callable[[int], WorkerOptions] | None = attrs.field(default=None, validator=_check_per_worker)
    #: What it has returned.
    worker_options: OptionsByNumber = _options_by_number()  # noqa: RUF009 - a field
    #: Working directory of the workers; None for this process's own.
    cwd: str | os.PathLike[str] | None = attrs.field(default=None, validator=path(or_none="this process's own"))
    #: Permission bits that files made by workers do not get, such as 0o077; None for this process's own umask.
    umask: int | None = attrs.field(default=None, validator=whole(0, 0o777, or_none="this process's own"))
    #: The interpreter of the workers.
    python: str = attrs.field(default=sys.executable, converter=_to_python, validator=path())
    #: The pool's name in worker ids, task names and log records.
    name: str = attrs.field(default=None, converter=_to_name, validator=name)
    #: The longest time from the start of a worker process until it is ready.
    start_timeout: float = _seconds(30.0)
    #: The time that cancelled code gets to end before its worker is killed.
    cancel_grace: float = _seconds(1.0)
    #: The longest time that leaving the pool's block takes. It is split evenly over goodbye, SIGTERM and SIGKILL.
    shutdown_timeout: float = _seconds(6.0)
    #: The largest frame on the link. It bounds the arguments of a call, a result and a chunk, without large buffers.
    max_frame_bytes: int = _count(MAX_FRAME_BYTES, 4096)
    #: Buffers (of arrays, frames, bytes) from this size on travel beside the message, not inside it.
    buffer_threshold: int = _count(BESIDE_BYTES)
    #: The largest size of all buffers of one value together.
    max_buffer_bytes: int = _count(1 << 33)
    #: Shared memory that a worker's arguments may occupy at a time. They occupy it as long as the worker's code refers
    #: to them. Its results may occupy as much again, as long as the application refers to them. Buffers for which no
    #: room is left go over the link. With 0, all buffers do.
    shared_memory: int = _count(1 << 31, 0)
    #: Buffers of a value that go over the link are compressed with zstd if they have this size together, or more; None
    #: for never. This needs the zstandard package on both sides. If the host lacks it, any size is refused with
    #: `UsageError`. If a worker lacks it, buffers are sent as they are.
    compress_from: int | None = attrs.field(default=None, validator=[whole(1, or_none="never"), _has_zstd])
    #: Whether workers on this machine get two pipes beside the gRPC channel. The pipes carry calls several times as
    #: fast. Without them, all calls go through the channel. The environment variable SNAKEPIT_LANE=0 switches the
    #: default to False.
    lane: bool = attrs.field(factory=_has_lane, validator=instance(bool, remedy="give True or False"))
    #: Chunks of a stream that may be under way before the consumer takes them. A chunk counts once for each 4 KiB that
    #: it has begun, so the default stands for 256 small chunks, or 1 MiB. One chunk may go beyond that, of any size.
    stream_window: int = _count(256)
    #: Calls beyond `concurrency` that are sent to a busy worker, if it has lately answered within milliseconds.
    send_ahead: int = _count(32, 0)
    #: The time between two pings, which ask a worker whether it still answers.
    ping_interval: float = _seconds(1.0)
    #: The time that a worker gets to answer a ping.
    ping_timeout: float = _seconds(1.0)
    #: After this number of missing answers in a row, a worker is killed and replaced.
    missed_pings: int = _count(2)
    #: Whether a worker that a debugger or a SIGSTOP has stopped is left alone.
    allow_debugger: bool = attrs.field(default=False, validator=instance(bool, remedy="give True or False"))
    #: Whether `breakpoint()` in tools and functions opens a debugger on this process's terminal; `"post-mortem"` opens
    #: it also where a tool raises. Calls of a worker have no deadlines while it stands at a breakpoint. Without it,
    #: `breakpoint()` raises an error in the tool. See docs/debugging.md.
    debug: bool | Literal["post-mortem"] = attrs.field(default=False, validator=_check_debug)
    #: If one worker ends more often than this within `restart_period`, in a row and each time before it has served a
    #: call, it goes into quarantine.
    max_restarts: int = _count(10)
    restart_period: float = _seconds(30.0)
    #: The time between two trials to start a worker that is in quarantine.
    quarantine: float = _seconds(5.0)
    #: When workers are replaced by fresh ones.
    recycle: RecyclePolicy = attrs.field(factory=RecyclePolicy, validator=_is(RecyclePolicy))
    #: How calls of idempotent tools are run again after a crash.
    retry: RetryPolicy = attrs.field(factory=RetryPolicy, validator=_is(RetryPolicy))
    #: If calls of one command, or of one session, kill this number of workers in a row, further calls of it are refused
    #: as tainted.
    taint_after: int = _count(3)
    #: The time for which tainted calls are refused.
    taint_period: float = _seconds(60.0)
    #: How many calls may wait for a worker: 0 for none, None for no bound. One more raises `PoolSaturated`. Calls
    #: that a worker has given back may always wait.
    max_queue: float = attrs.field(default=10_000, converter=_to_bound, validator=_check_bound)
    #: How many bytes of arguments waiting calls may hold together, without large buffers, whose copies wait for places
    #: of their own. None for no bound. A call beyond it raises `PoolSaturated`.
    max_queue_bytes: int | None = attrs.field(default=1 << 32, validator=whole(0, or_none="no bound"))
    #: Where calls of a session go. "hint": to the worker that served it last if that has a free place, else to any
    #: worker. "strict": they wait for that worker. "strict_fail_fast": if it has no free place, they raise
    #: `WorkerBusy`. When the worker ends, each of its sessions moves to the worker that takes its next call.
    affinity: Affinity = word("hint", get_args(Affinity))  # noqa: RUF009 - a field
    #: The pool remembers the workers of this number of sessions without waiting calls. It forgets the least recently
    #: used session.
    affinity_sessions: int = _count(10_000)
    #: Bounds of each worker process; None for no bounds.
    limits: Limits | None = attrs.field(default=None, validator=_is_or_none(Limits, "no bounds"))
    #: Threads that BLAS and OpenMP may use in each worker; None lets them choose. By default it is the number of
    #: cores divided by `workers`, or by the most of an autoscaled pool, at least 1. Environment variables that say
    #: otherwise win.
    threads: int | None = _threads()
    #: The store that keeps sessions; None for a store in this process. Pools may share a store. The name of a store
    #: that another package offers will do.
    store: SessionStore | None = attrs.field(
        default=None,
        converter=_to_store,
        validator=_is_or_none(SessionStore, "one in this process"),
    )
    #: How much the sessions in this process may hold. A `store` has quotas of its own.
    quotas: Quotas = attrs.field(factory=Quotas, validator=check_quotas)
    #: The time from the last use of a session of `Pool.session` until it expires.
    session_ttl: float = _seconds(DEFAULT_TTL)
    #: The time between two removals of expired sessions.
    cleanup_interval: float = _seconds(60.0)
    #: Where the workers run; None for processes of this machine. The name of a launcher that another package offers
    #: will do: docs/plugins.md.
    launcher: Launcher | None = attrs.field(
        default=None,
        converter=_to_launcher,
        validator=[_is_or_none(Launcher, "processes of this machine"), has_templates],
    )
    #: Serve the contract to clients of this machine: True for a free port, or an address such as "127.0.0.1:50051".
    #: All programs of this user, and root, may connect, and use all of the pool: see `open_to`, and docs/contract.md.
    #: With `bridge_tls` and `bridge_token`, it may be an address that other machines reach, such as "0.0.0.0:50051".
    #: `Pool.bridge_address` is the address.
    bridge_server: bool | str = attrs.field(
        default=False, validator=instance(bool, str, remedy="give True, False, or '127.0.0.1:50051'")
    )
    #: What each request of a client must have in its metadata, as "authorization: Bearer <token>"; None for no token.
    #: It has 16 to 4,096 characters of ASCII, without spaces. `secrets.token_urlsafe()` makes a good one.
    bridge_token: str | None = attrs.field(default=None, validator=_check_token, repr=False)
    #: A context for TLS with clients, with the certificate of this server; None for connections without TLS. The pool
    #: sets its ALPN protocols to "h2".
    bridge_tls: ssl.SSLContext | None = attrs.field(default=None, validator=_check_tls)
    #: Whether clients of `bridge_server` may send arrays as pickles, as Python programs of the Elixir system do. Only
    #: numbers are read from them.
    allow_pickle: bool = attrs.field(default=False, validator=instance(bool, remedy="give True or False"))
    #: Who may connect to the ports of `bridge_server` and of foreign workers' hosts: "user" for programs of this user,
    #: and root; "machine" for every program of this machine. With "user", a worker's port must be this user's as well.
    open_to: Literal["user", "machine"] = word("user", ("user", "machine"))
    #: How many plain functions of the host may run at a time, in threads, for workers' code.
    host_threads: int = _count(40)
    #: Requests of one worker's code to the host (for state and host tools) that may be without an answer at a time. A
    #: worker that makes more is killed, because it broke the protocol. The default is ten for each call of
    #: `concurrency`, and at least 1,000.
    max_asks: int = _asks()
    #: Bytes of answers to such requests, and of news of variables, that may wait for one worker to read them, without
    #: large buffers. A worker that leaves more unread is killed, because it broke the protocol.
    max_unread_bytes: int = _count(1 << 30)
    #: Lines of a worker's stderr, and of its log records, that are kept for error messages.
    stderr_lines: int = _count(20)
    #: The least level of the log records that workers pass on to this process's logging: a number from 1 on, or a name,
    #: such as "DEBUG". It becomes the level of the root logger in workers of ours.
    log_level: int = attrs.field(default=logging.INFO, converter=to_level, validator=whole(1, MOST_LEVEL))

    @property
    def bounds(self) -> Bounds:
        """The least and the most workers."""
        return bounds_of(self.workers)

    @property
    def preloads(self) -> Sequence[str]:
        """The modules that workers, or their template, import beside the adapter's."""
        return (*self.codec_modules, *(() if isinstance(self.template, bool) else self.template))

    @property
    def ahead(self) -> int:
        """Calls beyond `concurrency` that a worker may get: 0 for other protocols, which cannot give calls back."""
        return self.send_ahead if self.adapter.protocol == "link" else 0

    @property
    def shares_memory(self) -> bool:
        """Whether large arguments travel in shared memory."""
        return bool(self.shared_memory) and self.adapter.protocol == "link" and self.launcher is None

    @property
    def sizes(self) -> Sizes:
        """The sizes that both ends of a link must know."""
        return Sizes(
            self.max_frame_bytes,
            self.max_buffer_bytes,
            self.buffer_threshold,
            self.shared_memory if self.shares_memory else 0,
            self.compress_from,
        )
