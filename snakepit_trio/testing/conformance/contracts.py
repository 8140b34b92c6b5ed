"""The three contracts: the checks of a store, a launcher, and an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.options import AdapterLike, FurtherOptions

from . import expiry, hooks, hubs, lives, processes, running, sessions, tools, updates, workings
from .adapters import Adapters, Arguments, ExpectedCall
from .check import Contract, title_of
from .launchers import Launchers
from .launchers import Made as MadeLauncher
from .stores import Made as MadeStore
from .stores import Stores


def store(make: Callable[..., MadeStore], *, ttl: float = 2.0, patience: float = 5.0) -> Contract:
    """The contract of a `SessionStore`. `make` gives a new and empty one each time it is called.

    `make` may be the class, a function, a coroutine function, or a callable that gives an async context manager. If it
    has a parameter `clock`, it gets a function that returns Unix time in seconds, and the checks of expiry move that
    time on. If it has no such parameter, these checks wait, and their sessions live for `ttl` seconds. If it has a
    parameter `quotas`, it gets `Quotas`; else the checks of quotas are left out.

    A store whose `may_wait` is true may tell its hub a little later, within `patience` seconds.
    """
    given = Stores(make, ttl, patience)
    rules = (sessions.rules, updates.rules, hubs.rules, expiry.rules)
    return Contract(title_of(make), [check for each in rules for check in each.checks(given)])


def launcher(
    make: Callable[[], MadeLauncher],
    *,
    is_here: bool = True,
    find_tools: str = tools.__file__,
    **config: Unpack[FurtherOptions],
) -> Contract:
    """The contract of a `Launcher` and of all that it makes: `Site`, `WorkerProcess`, `Connection`.

    `make` gives a launcher each time it is called. It may be the class, a function, a coroutine function, or a callable
    that gives an async context manager. `config` are further settings of all pools, as `open_pool` has them. `is_here`
    says that the workers are processes of this machine, so that checks may look for them by pid and use this machine's
    paths. `find_tools` is where workers find the tools of the checks, as in `"{find_tools}:Tools"`: a path, or on other
    machines `"snakepit_trio.testing.conformance.tools"`.

    Checks that need processes are left out for launchers whose sites say `runs_inline`.
    """
    given = Launchers(make, is_here, find_tools, config)
    rules = (running.rules, processes.rules, lives.rules)
    return Contract(title_of(make), [check for each in rules for check in each.checks(given)])


def adapter(
    adapter: AdapterLike,
    calls: Iterable[tuple[str, Arguments, Any]],
    *,
    streams: Iterable[tuple[str, Arguments, Sequence[Any]]] = (),
    echo: tuple[str, str] | None = None,
    values: Sequence[Any] | None = None,
    fails: tuple[str, Arguments, str] | None = None,
    endless: tuple[str, Arguments] | None = None,
    crash: tuple[str, Arguments] | None = None,
    **config: Unpack[FurtherOptions],
) -> Contract:
    """The contract of an `Adapter`, or of anything that `open_pool` takes as an adapter.

    Each of `calls` is a tool's name, its arguments, and the expected result, or a function that says whether a result
    is right. Each of `streams` has the expected chunks in place of the result. Calls and streams are made many times,
    in any order. Further checks apply if their arguments are given. `echo` is a tool that returns its argument, and the
    name of the parameter; it gets `values`, by default values that the protocol can carry. `fails` is a call that
    raises, and the text that its message has. `endless` is a call that takes for ever, in a worker that may be killed.
    `crash` is a call that ends its worker's process. `config` are further settings of all pools, as `open_pool` has
    them.
    """
    made = PoolConfig(adapter=adapter).adapter
    given = Adapters(
        adapter=made,
        calls=_calls(calls, "calls"),
        streams=_calls(streams, "streams"),
        echo=echo,
        values=values,
        fails=fails,
        endless=endless,
        crash=crash,
        config=config,
    )
    if not given.calls:
        raise UsageError("the contract of an adapter takes calls: give at least one (name, args, expected)")
    rules = (hooks.rules, workings.rules)
    return Contract(repr(made), [check for each in rules for check in each.checks(given)])


def _calls(given: Iterable[tuple[str, Arguments, Any]], what: str) -> list[ExpectedCall]:
    try:
        return [ExpectedCall(name, args, expected) for name, args, expected in given]
    except (TypeError, ValueError):
        raise UsageError(f"{what} must be (name, args, expected) each, where args is a dict") from None
