"""Checks and contracts: how a rule is run, fails, and is left out."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Generic, Self, TypeVar, overload

import attrs
import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.ownership import require_trio

S = TypeVar("S")
Rule = Callable[[S], Awaitable[None] | None]
#: Seconds of trio's clock that one check gets. A check that hangs fails.
LONGEST: Final = 60.0
_SHORT: Final = 200  # values of up to this many characters are shown whole
_TEST_OF_PYTEST: Final = "PYTEST_CURRENT_TEST"

logger = logging.getLogger("snakepit.contract")


class LeftOut(unittest.SkipTest):
    """A check that does not apply, and why. unittest shows it as skipped."""


class Check:
    """The check of one rule, to be run by `await check()`. `name` is its name, `rule` the rule in words.

    Raises `AssertionError`, which says what was expected and what came. If the check does not apply, it is skipped in a
    test of pytest; elsewhere it raises `LeftOut`.
    """

    def __init__(self, name: str, rule: str, run: Callable[[], Awaitable[None] | None]) -> None:
        self.name = name
        self.rule = rule
        self._run = run

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def __call__(self) -> None:
        """Run the check. Takes `LONGEST` seconds at the most."""
        try:
            await self.attempt()
        except LeftOut as skipped:
            # The reason is logged here too, because pytest-trio drops it.
            logger.warning("%s is left out: %s", self.name, skipped)
            # pytest's plugins for async tests know only pytest's own outcomes, not those of unittest.
            if _TEST_OF_PYTEST in os.environ and (pytest := sys.modules.get("pytest")) is not None:
                pytest.skip(str(skipped))
            raise

    async def attempt(self) -> None:
        """Run the check. Raises `LeftOut` if it does not apply, and `UsageError` outside of trio."""
        require_trio()
        try:
            with trio.fail_after(LONGEST):
                running = self._run()
                if running is not None:
                    await running
        except Exception as error:
            culprit = _culprit(error)
            if isinstance(culprit, LeftOut):
                raise culprit from None
            failure = _failure(self.name, culprit)
            failure.add_note(f"the rule: {self.rule}")
            if failure is culprit:
                raise failure from None
            raise failure from error

    def left_out(self, why: str) -> Check:
        """A check in place of this one that is left out, for the reason `why`."""

        def leave_out() -> None:
            raise LeftOut(why)

        return Check(self.name, self.rule, leave_out)


@attrs.frozen
class Report:
    """The report of a contract that was kept: the checks that passed, and why others were left out."""

    passed: tuple[str, ...]
    left_out: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.passed)} checks passed, {len(self.left_out)} were left out"]
        return "\n".join([*lines, *(f"  {name}: {why}" for name, why in self.left_out.items())])


class Contract(Sequence[Check]):
    """Checks of one thing. Each check makes the thing anew, so they can be run in any order."""

    def __init__(self, subject: str, checks: Sequence[Check]) -> None:
        self.subject = subject
        self._checks = tuple(checks)

    def __len__(self) -> int:
        return len(self._checks)

    @overload
    def __getitem__(self, index: int) -> Check: ...
    @overload
    def __getitem__(self, index: slice) -> Contract: ...
    def __getitem__(self, index: int | slice) -> Check | Contract:
        if isinstance(index, slice):
            return Contract(self.subject, self._checks[index])
        return self._checks[index]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.subject}: {len(self)} checks>"

    def named(self, name: str) -> Check:
        """The check of this name. Raises `UsageError` if there is none."""
        for check in self._checks:
            if check.name == name:
                return check
        known = ", ".join(check.name for check in self._checks)
        raise UsageError(f"the contract of {self.subject} has no check {name!r}; there are: {known}")

    def without(self, name: str, why: str) -> Contract:
        """The contract with one check left out, for a reason that is shown. Raises `UsageError` for an unknown name."""
        gone = self.named(name)
        return Contract(self.subject, [check.left_out(why) if check is gone else check for check in self._checks])

    async def run(self) -> Report:
        """Run all checks, one after another. Checks that are left out are logged, and are in the report.

        Raises an `ExceptionGroup` of all failures.
        """
        passed, left_out, failures = [], {}, []
        for check in self._checks:
            try:
                await check.attempt()
            except LeftOut as skipped:
                left_out[check.name] = str(skipped)
                logger.warning("%s is left out: %s", check.name, skipped)
            except AssertionError as failure:
                failures.append(failure)
            else:
                passed.append(check.name)
        if failures:
            raise ExceptionGroup(f"{self.subject} breaks {len(failures)} of {len(self)} rules", failures)
        return Report(tuple(passed), left_out)


class Rules(Generic[S]):
    """The rules for one kind of thing, in the order of their definition."""

    def __init__(self) -> None:
        self._rules: list[Rule[S]] = []

    def __call__(self, rule: Rule[S]) -> Rule[S]:
        """Add a rule, as a decorator. The name of the function names the check, its docstring is the rule in words."""
        self._rules.append(rule)
        return rule

    def __iter__(self) -> Iterator[Rule[S]]:
        return iter(self._rules)

    def checks(self, subject: S) -> list[Check]:
        """The checks of a subject: one for each rule."""
        return [
            Check(_name_of(rule), inspect.getdoc(rule) or "", functools.partial(rule, subject)) for rule in self._rules
        ]


# Functions to write rules with. They do not rely on pytest's rewriting of assert.


def that(condition: object, what: str) -> None:
    """Raise `AssertionError` if a condition does not hold; `what` says what was expected, and what came."""
    if not condition:
        raise AssertionError(what)


def equal(came: object, expected: object, what: str) -> None:
    """Raise `AssertionError` if two values, or any parts of them, differ or are of different types."""
    found = _difference(came, expected, "")
    if found is None:
        return
    path, part, expected_part = found
    if max(len(repr(came)), len(repr(expected))) <= _SHORT:
        path, part, expected_part = "", came, expected
    raise AssertionError(f"{what}{path and ', at ' + path}: expected {expected_part!r:.500}, but {part!r:.500} came")


class raises:  # noqa: N801 - reads as what it does
    """A block that must raise an error of type `kind` with `names` in its text. Else it raises `AssertionError`."""

    def __init__(self, kind: type[BaseException], what: str, names: str = "") -> None:
        self._kind = kind
        self._what = what
        self._names = names
        self.error: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if error is None:
            raise AssertionError(f"{self._what}: expected {self._kind.__name__}, but nothing was raised")
        if not isinstance(error, self._kind):
            # A cancellation, a rule that is left out and another failure are no answers.
            if isinstance(error, (AssertionError, LeftOut)) or not isinstance(error, Exception):
                return False
            raise AssertionError(f"{self._what}: expected {self._kind.__name__}, but {error!r:.500} came") from error
        if self._names not in str(error):
            expected = f"{self._kind.__name__} with {self._names!r} in its text"
            raise AssertionError(f"{self._what}: expected {expected}, but {error!r:.500} came") from error
        self.error = error
        return True


@asynccontextmanager
async def made_by(make: Callable[..., Any], kind: type, **options: Any) -> AsyncIterator[Any]:
    """The thing that a maker makes. The maker may return it, an awaitable of it, or an async context manager of it.

    Raises `UsageError` if the thing is not of type `kind`.
    """
    made = make(**options)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as thing:
            yield _checked(thing, kind)
    else:
        yield _checked(made, kind)


def takes(make: Callable[..., Any], parameter: str) -> bool:
    """Whether a maker has a parameter of this name."""
    try:
        found = inspect.signature(make).parameters.get(parameter)
    except (TypeError, ValueError):
        return False
    return found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)


def title_of(thing: object) -> str:
    """The name of a thing in reports."""
    return getattr(thing, "__qualname__", None) or repr(thing)


def _difference(came: Any, expected: Any, path: str) -> tuple[str, Any, Any] | None:
    """The path of the first difference of two values, and the part of each there; None if there is none."""
    if type(came) is type(expected):
        if isinstance(came, dict) and came.keys() == expected.keys():
            return _first((came[key], expected[key], f"{path}[{key!r}]") for key in came)
        if isinstance(came, (list, tuple)) and len(came) == len(expected):
            return _first((part, expected[n], f"{path}[{n}]") for n, part in enumerate(came))
        if _is_same_leaf(came, expected):
            return None
    return path, came, expected


def _first(parts: Iterable[tuple[Any, Any, str]]) -> tuple[str, Any, Any] | None:
    return next((found for part in parts if (found := _difference(*part)) is not None), None)


def _is_same_leaf(came: Any, expected: Any) -> bool:
    same = came == expected
    if not isinstance(same, bool):
        raise UsageError(
            f"a {type(came).__name__} is not compared by ==: give a function that says whether it is right"
        )
    return same or bool(came != came and expected != expected)


def _checked(thing: Any, kind: type) -> Any:
    if not isinstance(thing, kind):
        raise UsageError(f"the maker gave {thing!r:.200}: let it give a {kind.__name__}, or a context manager of one")
    return thing


def _name_of(rule: Callable[..., Any]) -> str:
    return str(getattr(rule, "__name__", rule))


def _culprit(error: Exception) -> Exception:
    """The first failure, or left-out rule, in nested groups. An error that is no group is returned as it is."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_culprit(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, (AssertionError, LeftOut))), leaves[0])


def _failure(name: str, error: Exception) -> AssertionError:
    if isinstance(error, AssertionError):
        return error
    if isinstance(error, trio.TooSlowError):
        return AssertionError(f"{name}: it took too long, and may never end")
    return AssertionError(f"{name}: nothing was to be raised, but {error!r:.500} came")
