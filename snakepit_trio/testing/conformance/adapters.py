"""The input of the rules for an `Adapter`: the adapter, and calls of its tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Unpack

import attrs

import snakepit_trio._pool.opening
from snakepit_trio._config.adapters import Adapter
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.options import FurtherOptions
from snakepit_trio._pool.pool import Pool

from .check import LeftOut, equal, that

Arguments = Mapping[str, Any]


@attrs.frozen
class ExpectedCall:
    """One call and its expected result: a value, or a function that says whether a result is right."""

    name: str
    args: Arguments
    expected: Any

    def __str__(self) -> str:
        return f"{self.name}({dict(self.args)!r:.200})"

    def check(self, came: Any, what: str) -> None:
        """Raise `AssertionError` if the result is not the expected one."""
        if callable(self.expected):
            that(
                self.expected(came),
                f"{what}: expected a result for which the given function is true, but {came!r} came",
            )
        else:
            equal(came, self.expected, what)


@attrs.frozen(kw_only=True)
class Adapters:
    """The adapter that the rules check, and what is known of its tools."""

    adapter: Adapter
    calls: list[ExpectedCall]
    streams: list[ExpectedCall]
    echo: tuple[str, str] | None
    values: Sequence[Any] | None
    fails: tuple[str, Arguments, str] | None
    endless: tuple[str, Arguments] | None
    crash: tuple[str, Arguments] | None
    config: FurtherOptions

    def pool(
        self, adapter: Adapter | None = None, **config: Unpack[FurtherOptions]
    ) -> AbstractAsyncContextManager[Pool]:
        """A pool of the adapter, or of another one, still to be opened. One worker unless `config` says otherwise."""
        settings: FurtherOptions = {"workers": 1, **self.config, **config}
        return snakepit_trio._pool.opening.open_pool(adapter or self.adapter, **settings)

    @property
    def python(self) -> str:
        """The interpreter of the adapter's pools."""
        settings: dict[str, Any] = {**self.config}
        return PoolConfig(adapter=self.adapter, **settings).python

    def overrides(self, hook: str) -> bool:
        """Whether the adapter has a hook of its own."""
        return getattr(type(self.adapter), hook) is not getattr(Adapter, hook)

    def needs(self, thing: object, parameter: str) -> None:
        """Leave the check out if nothing was given as `parameter`."""
        if thing is None or thing == []:
            raise LeftOut(f"nothing was given as {parameter}=")

    def sent(self, call: ExpectedCall) -> str:
        """A text for messages: what the adapter's `prepare_args` makes of a call's arguments.

        It is empty if the adapter has no `prepare_args` of its own.
        """
        if not self.overrides("prepare_args"):
            return ""
        try:
            return (
                f" (prepare_args made {self.adapter.prepare_args(call.name, dict(call.args))!r:.200} of its arguments)"
            )
        except Exception as error:
            return f" (prepare_args raised {error!r})"
