"""Settings have types: `PoolOptions` names each setting of `PoolConfig`, and type checkers hold callers to it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Unpack

import attrs
import pytest

import snakepit_trio as snakepit
from snakepit_trio import testing
from snakepit_trio._config.options import FurtherOptions
from snakepit_trio.testing import InMemory, conformance
from tests.helpers.workers import TOOLS

#: What callers may give.
FIELDS = [field for field in attrs.fields(snakepit.PoolConfig) if field.init and not field.name.startswith("_")]


def test_the_options_are_the_fields_of_the_configuration() -> None:
    fields = {field.name for field in FIELDS}
    assert set(snakepit.PoolOptions.__annotations__) == fields
    assert set(FurtherOptions.__annotations__) == fields - {"adapter"}
    assert not snakepit.PoolOptions.__required_keys__


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_an_option_takes_what_its_field_holds(field: attrs.Attribute[Any]) -> None:
    """The type that callers may give is the field's, or a wider one. A bound of the queue is held as a float."""
    held = _alternatives(snakepit.PoolConfig, field.name)
    given = _alternatives(snakepit.PoolOptions, field.name)
    assert held - {float} <= given if field.name == "max_queue" else held <= given


def _alternatives(kind: type, name: str) -> set[Any]:
    hint = typing.get_type_hints(kind)[name]
    return set(typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else {hint}


@pytest.mark.parametrize(
    "function",
    [snakepit.open_pool, snakepit.run_as_script, conformance.launcher, conformance.adapter],
    ids=lambda function: function.__name__,
)
def test_what_opens_pools_takes_the_options(function: Callable[..., Any]) -> None:
    (config,) = [each for each in inspect.signature(function).parameters.values() if each.kind is each.VAR_KEYWORD]
    assert typing.get_type_hints(function)[config.name] == Unpack[FurtherOptions]


async def test_options_are_handed_on() -> None:
    options: snakepit.PoolOptions = {"adapter": TOOLS, "workers": 1, "name": "typed", "launcher": InMemory()}
    async with snakepit.open_pool(**options) as pool:
        assert (pool.config.name, pool.config.workers, pool.config.concurrency) == ("typed", 1, 1)


async def test_an_unknown_setting_is_told_in_one_line() -> None:
    with pytest.raises(snakepit.UsageError, match="argument 'wrokers': did you mean 'workers'") as caught:
        async with snakepit.open_pool(TOOLS, wrokers=2):  # type: ignore[call-arg]
            pytest.fail("the block was entered")
    assert "\n" not in str(caught.value)


def test_two_adapters_are_a_wrong_call() -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'adapter'"):
        snakepit.open_pool(TOOLS, adapter=TOOLS)  # type: ignore[misc]


def _known_to_type_checkers() -> None:
    """Not called. mypy fails if it does not find a fault in each of these lines, and in none of the others."""
    snakepit.open_pool(TOOLS, workers="2")  # type: ignore[arg-type]
    snakepit.open_pool(TOOLS, affinity="loose")  # type: ignore[arg-type]
    snakepit.open_pool(adapter=3)  # type: ignore[arg-type]
    snakepit.open_pool(TOOLS, per_worker=lambda number: snakepit.WorkerOptions(env={"GPU": str(number)}, cpus={number}))
    snakepit.open_pool(TOOLS, per_worker=lambda number: {"env": number})  # type: ignore[arg-type,return-value]
    snakepit.open_pool(TOOLS, max_queue=None, python="python3", env={"A": "1"}, limits=snakepit.Limits(nice=5))

    snakepit.open_pool(TOOLS, workers=(2, 8), scale_up_after=0.5, idle_timeout=30)
    snakepit.open_pool(TOOLS, workers=(2, 8, 9))  # type: ignore[arg-type]

    async def main(pool: snakepit.Pool) -> int:
        return pool.config.concurrency

    snakepit.run_as_script(main, TOOLS, workers=2.5)  # type: ignore[arg-type]
    conformance.launcher(testing.InMemory, shutdown_timeout="1")  # type: ignore[arg-type]
    snakepit.PoolOption  # type: ignore[attr-defined]  # noqa: B018
