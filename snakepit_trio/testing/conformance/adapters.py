"""The contract of an `Adapter`, and what its rules are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs

import snakepit_trio._pool.pool
from bridge_py import BaseAdapter
from bridge_py.wire.errors import UsageError
from snakepit_trio._config.adapters import Adapter
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._pool.pool import Pool

from .check import Contract, LeftOut, equal, that

Arguments = Mapping[str, Any]


@attrs.frozen
class Call:
    """One call and what is expected of it: a value, or a function that says whether a result is right."""

    name: str
    args: Arguments
    expected: Any

    def __str__(self) -> str:
        return f"{self.name}({dict(self.args)!r:.200})"

    def check(self, came: Any, what: str) -> None:
        """Raise `AssertionError` if the result is not what is expected."""
        if callable(self.expected):
            that(
                self.expected(came),
                f"{what}: expected a result for which the given function is true, but {came!r} came",
            )
        else:
            equal(came, self.expected, what)


def adapter(
    adapter: Adapter | str | type[BaseAdapter],
    calls: Iterable[tuple[str, Arguments, Any]],
    *,
    streams: Iterable[tuple[str, Arguments, Sequence[Any]]] = (),
    echo: tuple[str, str] | None = None,
    values: Sequence[Any] | None = None,
    fails: tuple[str, Arguments, str] | None = None,
    endless: tuple[str, Arguments] | None = None,
    crash: tuple[str, Arguments] | None = None,
    **config: Any,
) -> Contract:
    """The contract of an `Adapter`, or of what `open_pool` takes for one.

    Each call is a tool's name, its arguments, and the result that is expected, or a function that says whether a result
    is right; each of `streams` has the chunks in place of the result. They are made many times, in any order. Further
    checks apply to what is named: `echo` is a tool, and its parameter, that gives back what it is given, by default
    `values` that the protocol can carry; `fails` a call that raises, and what its message says; `endless` one that
    takes for ever, in a worker that may be killed; `crash` one that ends its worker's process. `config` are further
    settings of all pools, as `open_pool` has them.
    """
    from . import hooks, workings

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


@attrs.frozen(kw_only=True)
class Adapters:
    """The adapter that rules look at, and what is known of its tools."""

    adapter: Adapter
    calls: list[Call]
    streams: list[Call]
    echo: tuple[str, str] | None
    values: Sequence[Any] | None
    fails: tuple[str, Arguments, str] | None
    endless: tuple[str, Arguments] | None
    crash: tuple[str, Arguments] | None
    config: dict[str, Any]

    def pool(self, adapter: Adapter | None = None, **config: Any) -> AbstractAsyncContextManager[Pool]:
        """A pool of the adapter, or of another one: of one worker, unless `config` says otherwise. To be opened."""
        return snakepit_trio._pool.pool.open_pool(adapter or self.adapter, **{"workers": 1, **self.config, **config})

    @property
    def python(self) -> str:
        """The interpreter of its pools."""
        return PoolConfig(adapter=self.adapter, **self.config).python

    def overrides(self, hook: str) -> bool:
        """Whether the adapter has a hook of its own."""
        return getattr(type(self.adapter), hook) is not getattr(Adapter, hook)

    def needs(self, thing: object, parameter: str) -> None:
        """Leave a check out for which nothing was given."""
        if thing is None or thing == []:
            raise LeftOut(f"nothing was given as {parameter}=")

    def sent(self, call: Call) -> str:
        """What the adapter makes of a call's arguments, for messages; empty if it does nothing with them."""
        if not self.overrides("prepare_args"):
            return ""
        try:
            return (
                f" (prepare_args made {self.adapter.prepare_args(call.name, dict(call.args))!r:.200} of its arguments)"
            )
        except Exception as error:
            return f" (prepare_args raised {error!r})"


def _calls(given: Iterable[tuple[str, Arguments, Any]], what: str) -> list[Call]:
    try:
        return [Call(name, args, expected) for name, args, expected in given]
    except (TypeError, ValueError):
        raise UsageError(f"{what} must be (name, args, expected) each, where args is a dict") from None
