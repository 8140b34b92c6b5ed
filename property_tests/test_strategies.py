"""Properties of the public strategies: what they call good is taken, and what they call bad is refused."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import math
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool
from bridge_py.wire import codec
from bridge_py.wire.errors import InvalidArguments, InvalidValue, UnknownTool, UsageError
from bridge_py.wire.specs import ToolSpec
from bridge_py.wire.types import get_type, list_types, validate
from snakepit_trio.testing import InMemory
from snakepit_trio.testing import strategies as ours
from snakepit_trio.testing.strategies import Concurrently, Execute, Outcome, Stream, TypedValue, carry_out, equal

from .hinted_tools import Many, Point

TOOLS = BaseAdapter.tools(Many.__new__(Many))


def _sent(value: Any) -> Any:
    packed = codec.encode(value)
    return codec.decode(packed.body, b"".join(packed.buffers))


@given(ours.values(), st.sampled_from([1, 64, codec.BESIDE_BYTES]))
@settings(deadline=None)
def test_values_arrive_equal_there_and_back(value: Any, beside: int) -> None:
    packed = codec.encode(value, beside=beside)
    arrived = codec.decode(packed.body, b"".join(packed.buffers))
    assert equal(value, arrived)
    back = _sent(arrived)
    assert equal(arrived, back)
    assert equal(value, back)


@given(ours.values(arrays=False))
def test_there_are_no_arrays_if_none_are_wanted(value: Any) -> None:
    assert "array(" not in repr(value).replace("bytearray(", "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], (1,)),
        ({1: 0}, {True: 0}),
        ({(1,)}, {(True,)}),
        ({"a": [math.nan]}, {"a": [0.0]}),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        (np.zeros(2), np.zeros(2, "float32")),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2), np.array([0.0, -0.0])),
        (np.zeros(2), [0.0, 0.0]),
        ("a", b"a"),
        ({}, {"a": None}),
        ([1], [1, 2]),
    ],
)
def test_what_is_not_the_same_is_not_equal(one: Any, other: Any) -> None:
    assert not equal(one, other)


@given(st.one_of(ours.values(), st.just((1, (math.nan, {"a": (2,)})))))
@settings(deadline=None)
def test_a_value_equals_itself_with_lists_for_tuples(value: Any) -> None:
    def listed(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return [listed(item) for item in part]
        return {key: listed(item) for key, item in part.items()} if isinstance(part, dict) else part

    assert equal(value, value)
    assert equal(value, listed(value))


class _Session:
    """A session of a store in memory, for code without trio."""

    def __init__(self) -> None:
        self.store = snakepit.MemoryStore()

    def register(self, given: TypedValue, then: Any) -> tuple[Any, Any]:
        async def main() -> tuple[Any, Any]:
            session = self.store.of(await self.store.create_session())
            await session.register_variable("v", given.type, given.value, constraints=given.constraints)
            before = (await session.get_variable("v")).value
            await session.update_variable("v", then)
            return before, (await session.get_variable("v")).value

        return trio.run(main)


@pytest.mark.parametrize("name", list_types())
@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_variables_fit(name: str, data: st.DataObject) -> None:
    drawn = data.draw(ours.variables(name))
    assert equal(drawn.value, validate(drawn.value, drawn.type, drawn.constraints))
    before, after = _Session().register(drawn, drawn.value)
    assert equal(drawn.value, before)
    assert equal(drawn.value, after)


@pytest.mark.parametrize("name", list_types())
def test_all_constraints_of_a_type_are_drawn(name: str) -> None:
    drawn: set[str] = set()

    @given(ours.variables(name))
    @settings(database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    def draw(variable: TypedValue) -> None:
        assert variable.type == name
        drawn.update(variable.constraints)

    draw()
    assert drawn == set(get_type(name).constraints)


@pytest.mark.parametrize("name", list_types())
@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_bad_values_never_fit(name: str, data: st.DataObject) -> None:
    drawn = data.draw(ours.variables(name))
    bad = data.draw(ours.bad_values(name, drawn.constraints))
    with pytest.raises(InvalidValue):
        validate(bad, name, drawn.constraints)
    with pytest.raises(InvalidValue):
        _Session().register(TypedValue(name, bad, drawn.constraints), drawn.value)
    with pytest.raises(InvalidValue):
        _Session().register(drawn, bad)


def test_bad_values_break_each_constraint() -> None:
    bounds: dict[str, dict[str, Any]] = {
        "float": {"min": -1.0, "max": 2},
        "integer": {"min": 0, "max": 9.5},
        "string": {"min_length": 1, "max_length": 3, "pattern": "^a", "enum": ["a", "ab"]},
        "choice": {"choices": ["a"]},
        "module": {"choices": ["a"]},
        "embedding": {"dimensions": 3},
        "tensor": {"shape": [2, None], "dtype": "int64"},
        "list": {"min_length": 1, "max_length": 3, "element_type": "string"},
        "map": {"required": ["a", "b"], "value_type": "integer"},
    }
    for name, constraints in bounds.items():
        for constraint, bound in constraints.items():
            broken: set[str] = set()

            @given(st.just(name), st.just({constraint: bound}), ours.bad_values(name, {constraint: bound}))
            @settings(database=None, derandomize=True)
            def draw(name: str, constraints: dict[str, Any], value: Any) -> None:
                with pytest.raises(InvalidValue) as found:
                    validate(value, name, constraints)
                broken.add(found.value.constraint)  # noqa: B023 - drawn at once

            draw()
            assert broken == {"", constraint}, name


@pytest.mark.parametrize(
    ("name", "constraints"),
    [
        ("float", {"min": -math.inf, "max": math.inf}),
        ("float", {"min": 10**400}),
        ("float", {"min": -(10**400)}),
        ("float", {"max": -(10**400)}),
        ("float", {"max": 2**53 + 1, "min": 2**53 + 1}),
        ("integer", {"min": -math.inf, "max": math.inf}),
        ("integer", {"min": math.inf}),
        ("string", {"min_length": 0, "max_length": 10_000, "pattern": ""}),
        ("tensor", {"shape": []}),
        ("tensor", {"shape": [1, None]}),
        ("tensor", {"shape": [0, 3]}),
        ("tensor", {"dtype": "float32"}),
        ("embedding", {"dimensions": 0}),
        ("list", {"element_type": "list"}),
    ],
)
@given(data=st.data())
@settings(max_examples=30)
def test_bad_values_of_odd_constraints(name: str, constraints: dict[str, Any], data: st.DataObject) -> None:
    bad = data.draw(ours.bad_values(name, constraints))
    with pytest.raises(InvalidValue):
        validate(bad, name, constraints)


def test_constraints_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidValue, match="float has no constraint 'least'"):
        ours.bad_values("float", {"least": 1})
    with pytest.raises(InvalidValue, match="no variable type 'flaot'"):
        ours.variables("flaot")


@given(ours.variable_types(), ours.variables())
def test_variables_are_of_the_types_there_are(name: str, variable: TypedValue) -> None:
    assert name in list_types()
    assert variable.type in list_types()


@given(ours.tool_specs())
def test_tool_specs_travel(spec: ToolSpec) -> None:
    names = [parameter.name for parameter in spec.parameters]
    assert len(names) == len(set(names))
    assert msgspec.convert(_sent(spec), ToolSpec) == spec


@given(ours.calls(Many))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_calls_bind(call: ours.Call) -> None:
    TOOLS[call.name].bind(_sent(call.arguments), None)


@given(ours.wrong_calls(Many))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_wrong_calls_have_one_thing_wrong(call: ours.Call) -> None:
    bound, given = TOOLS[call.name], _sent(call.arguments)
    with pytest.raises(InvalidArguments) as found:
        bound.bind(given, None)
    culprit = found.value.parameter
    known = {parameter.name for parameter in bound.spec.parameters}
    assert culprit in known ^ (given.keys() - known)


def test_calls_of_some_tools() -> None:
    @given(ours.calls(Many, tools=["nothing"]))
    def draw(call: ours.Call) -> None:
        assert call == ("nothing", {})

    draw()
    with pytest.raises(UnknownTool, match="did you mean 'nothing'"):
        ours.calls(Many, tools=["nothin"])


def test_adapters_that_cannot_be_called_are_named() -> None:
    class Idle(BaseAdapter):
        pass

    class Easy(BaseAdapter):
        @tool
        def take(self, **all: Any) -> None:
            """Take all."""

    with pytest.raises(UsageError, match="Idle has no tools: mark its methods"):
        ours.calls(Idle)
    with pytest.raises(UsageError, match="Easy: its tools take whatever they are given"):
        ours.wrong_calls(Easy())
    with pytest.raises(UsageError, match="give a class that derives from"):
        ours.calls(Point)  # type: ignore[arg-type]


class Tools(BaseAdapter):
    """What commands do."""

    running = 0

    @tool
    async def nap(self, seconds: Annotated[float, msgspec.Meta(ge=0, le=20)]) -> float:
        """Sleep."""
        with self._run():
            await asyncio.sleep(seconds)
        return seconds

    @tool
    def echo(self, value: Any) -> Any:
        """Return what is given."""
        return value

    @tool
    def fail(self, value: int) -> None:
        """Raise."""
        raise KeyError(value)

    @tool
    def bump(self, ctx: SessionContext) -> int:
        """Count the calls of a session."""
        ctx["bumps"] = ctx["bumps"] + 1 if "bumps" in ctx else 1
        return int(ctx["bumps"])

    @tool
    def count(self, n: Annotated[int, msgspec.Meta(ge=0, le=20)]) -> Iterator[int]:
        """Count."""
        with self._run():
            yield from range(n)

    @tool
    async def tick(
        self, ctx: AsyncSessionContext, seconds: Annotated[float, msgspec.Meta(gt=0.1, le=3)]
    ) -> AsyncIterator[int]:
        """Count slowly, for ever."""
        with self._run():
            n = 0
            while True:
                await asyncio.sleep(seconds)
                yield n
                n += 1

    @contextlib.contextmanager
    def _run(self) -> Iterator[None]:
        Tools.running += 1
        try:
            yield
        finally:
            Tools.running -= 1


def _check(command: ours.Command, outcome: Outcome) -> None:
    if isinstance(command, Concurrently):
        assert len(command.commands) == len(outcome.parts)
        for each, part in zip(command.commands, outcome.parts, strict=True):
            _check(each, part)
        return
    assert not outcome.is_cancelled or command.cancel_after is not None
    if isinstance(outcome.error, snakepit.CallTimeout) or outcome.is_cancelled:
        assert command.name in ("nap", "tick") or isinstance(command, Execute)
        return
    if command.name == "fail":
        assert isinstance(outcome.error, snakepit.ToolError)
        assert outcome.error.type == "KeyError"
        return
    assert outcome.error is None
    if isinstance(command, Stream):
        assert command.take is None or len(outcome.chunks) <= command.take
        assert list(outcome.chunks) == list(range(len(outcome.chunks)))
    elif command.name == "echo":
        assert equal(command.arguments["value"], outcome.result)


SESSIONLESS = st.one_of(ours.calls(Tools, tools=["nap", "echo", "fail", "count", "tick"]))


@given(ours.commands(Tools, calls=SESSIONLESS))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_commands_are_done_and_nothing_runs_on(commands: list[ours.Command]) -> None:
    async def main() -> None:
        async with snakepit.open_pool(Tools, launcher=InMemory(), concurrency=2) as pool:
            for command in commands:
                outcome = await carry_out(pool, command)
                assert Tools.running == 0
                _check(command, outcome)

    Tools.running = 0
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def _outcomes(*commands: ours.Command) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with snakepit.open_pool(Tools, launcher=InMemory(), concurrency=2) as pool:
            return [await carry_out(pool, command) for command in commands]

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_outcomes() -> None:
    result, timed_out, cancelled, left, full, wrong, late = _outcomes(
        Execute("echo", {"value": (1, 2)}),
        Execute("nap", {"seconds": 5.0}, timeout=1),
        Execute("nap", {"seconds": 5.0}, cancel_after=1),
        Stream("tick", {"seconds": 1.0}, take=3),
        Stream("count", {"n": 2}),
        Execute("count", {"n": 2}),
        Stream("tick", {"seconds": 1.0}, timeout=2.5),
    )
    assert result == Outcome([1, 2])
    assert isinstance(timed_out.error, snakepit.CallTimeout)
    assert cancelled == Outcome(is_cancelled=True)
    assert left == Outcome(chunks=(0, 1, 2))
    assert full == Outcome(chunks=(0, 1))
    assert isinstance(wrong.error, snakepit.WrongCallKind)
    assert late.chunks == (0, 1)
    assert isinstance(late.error, snakepit.CallTimeout)


def test_commands_of_a_session_share_its_state() -> None:
    bump = Execute("bump", {}, session="a")
    first, both, other = _outcomes(bump, Concurrently((bump, bump)), Execute("bump", {}, session="b"))
    assert first == Outcome(1)
    assert len(both.parts) == 2
    assert max(part.result for part in both.parts) in (2, 3)
    assert other == Outcome(1)


def test_a_command_is_shown_as_it_is_written() -> None:
    command = Concurrently(
        (Execute("nap", {"seconds": 1.0}, timeout=0.5), Stream("count", {"n": 3}, take=2, session="a"))
    )
    text = (
        "Concurrently((Execute('nap', {'seconds': 1.0}, timeout=0.5), Stream('count', {'n': 3}, take=2, session='a')))"
    )
    assert repr(command).replace(",)", ")") == text
    assert eval(repr(command)) == command


@given(ours.commands(Tools, timeouts=None, cancels=None, takes=None, sessions=(), concurrent=1, max_size=3))
def test_commands_without_options(commands: list[ours.Command]) -> None:
    for command in commands:
        assert not isinstance(command, Concurrently)
        assert (command.timeout, command.session, command.cancel_after) == (None, None, None)
        assert not isinstance(command, Stream) or command.take is None
    assert len(commands) <= 3
