"""Property: an exception is made again as itself, with all that belongs to it, or it is not made at all."""

from __future__ import annotations

import builtins
import decimal
import json
import re
import zlib
from typing import Any

import numpy as np
import outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_py.wire.raised import describe, rebuild

from .same_values import same

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
_NEVER = (StopIteration, StopAsyncIteration, BaseExceptionGroup)


class Coded(Exception):
    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


class Slotted(Coded):
    __slots__ = ("__hidden", "more", "unset")

    def __init__(self, more: Any) -> None:
        super().__init__(1, why="x")
        self.more = self.__hidden = more


class Lost(FileNotFoundError):
    pass


KINDS = [
    kind for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NEVER)
]  # fmt: skip
parts = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
                  st.tuples(st.integers(), st.text(max_size=2)), st.lists(st.integers(), max_size=2))  # fmt: skip
notes = st.lists(st.text("abc", max_size=3), max_size=2)


def made(kind: type[BaseException], *args: object) -> BaseException:
    """An exception of a class, or what the class raises because it takes no such arguments."""
    found = outcome.capture(kind, *args)
    return found.value if isinstance(found, outcome.Value) else found.error


@st.composite
def single(draw: st.DrawFn) -> BaseException:
    how = draw(st.sampled_from(["builtin", "builtin", "os", "own", "slots", "unicode", "import", "library"]))
    text, number = draw(st.text("ab", max_size=3)), draw(st.integers(0, 140))
    if how == "builtin":
        found = made(draw(st.sampled_from(KINDS)), *draw(st.lists(parts, max_size=5)))
    elif how == "os":
        kind = draw(st.sampled_from([OSError, Lost, ConnectionError]))
        found = made(kind, number, text, *draw(st.lists(parts, max_size=1)))
    elif how == "own":
        found = Coded(number, why=text)
        found.extra = draw(parts)  # type: ignore[attr-defined]
    elif how == "slots":
        found = Slotted(draw(parts))
    elif how == "unicode":
        found = UnicodeDecodeError("utf-8", draw(st.binary(max_size=4)), number, number + 1, text)
    elif how == "import":
        found = ModuleNotFoundError(text, name=draw(st.none() | st.just(text)), path=text)
    else:
        found = draw(st.sampled_from([
            json.JSONDecodeError("m", text, 0), re.error("m", "(", 0), zlib.error(text), decimal.DivisionByZero(text),
            np.linalg.LinAlgError(text), np.exceptions.AxisError(number, 2), NameError(text, name="n"),
            KeyError((1, text)), SyntaxError("m", ("f", 1, 2, text)),
        ]))  # fmt: skip
    for note in draw(notes):
        found.add_note(note)
    return found


@st.composite
def exceptions(draw: st.DrawFn, depth: int = 2) -> BaseException:
    found = draw(single())
    if depth and draw(st.booleans()):
        members = draw(st.lists(exceptions(depth - 1), min_size=1, max_size=2))
        found = ExceptionGroup(draw(st.text("ab", max_size=3)), members)  # type: ignore[type-var]
    if depth and draw(st.booleans()):
        found.__context__ = draw(exceptions(depth - 1))
    if depth and draw(st.booleans()):
        found.__cause__ = draw(exceptions(depth - 1))
    return found


def _equal(one: BaseException | None, other: BaseException | None) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, BaseExceptionGroup):
        assert isinstance(other, BaseExceptionGroup)
        members = one.exceptions, other.exceptions
        args = one.message == other.message and len(members[0]) == len(members[1]) and all(map(_equal, *members))
    else:
        args = same(one.args, other.args)
    linked = _equal(one.__cause__, other.__cause__) and _equal(one.__context__, other.__context__)
    shown = str(one) == str(other) and repr(one) == repr(other)
    return (
        type(one) is type(other)
        and args
        and linked
        and shown
        and same(vars(one), vars(other))
        and _attributes(one, other)
    )


def _attributes(one: BaseException, other: BaseException) -> bool:
    compared = ("exceptions", "args")  # in `_equal`
    names = [name for name in dir(one) if not name.startswith("__") and name not in compared]
    values = [(getattr(one, name, None), getattr(other, name, None)) for name in names]
    return all(callable(mine) or same(mine, its) for mine, its in values)


@SLOW
@given(exceptions())
def test_an_exception_is_made_again_as_itself(error: BaseException) -> None:
    description = describe(error)
    assert description
    assert _equal(error, rebuild(description))


@SLOW
@given(exceptions(), st.data())
def test_a_broken_description_makes_an_exception_or_nothing(error: BaseException, data: st.DataObject) -> None:
    body = bytearray(describe(error))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    found = rebuild(bytes(body))
    assert found is None or isinstance(found, Exception)


@SLOW
@given(exceptions(1), exceptions(1))
def test_a_cause_that_cannot_be_sent_is_left_out(error: BaseException, lost: BaseException) -> None:
    lost.args = (object(),) if not isinstance(lost, BaseExceptionGroup) else lost.args
    lost.thing = object()  # type: ignore[attr-defined]
    error.__cause__ = lost
    found = rebuild(describe(error))
    assert found is not None
    assert found.__cause__ is None
    assert same(found.args, error.args) or isinstance(found, ExceptionGroup)
