"""Tools that are written wrongly are told when they are made."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from bridge_py import BaseAdapter, SessionContext, UsageError, tool


class _Base(BaseAdapter):
    @tool
    def known(self) -> int:
        return 1


class _NoParameters(BaseAdapter):
    @tool
    def f() -> int:  # type: ignore[misc]
        return 1


class _NoSelf(BaseAdapter):
    @tool
    def f(n: int) -> int:  # type: ignore[misc]  # noqa: N805
        return n


class _KeywordOnly(BaseAdapter):
    @tool
    def f(*, n: int) -> int:  # type: ignore[misc]
        return n


class _Static(BaseAdapter):
    @tool
    @staticmethod
    def f(n: int) -> int:
        return n


class _StaticAround(BaseAdapter):
    @staticmethod
    @tool
    def f(n: int) -> int:
        return n


class _Class(BaseAdapter):
    @tool
    @classmethod
    def f(cls) -> int:
        return 1


class _ClassAround(BaseAdapter):
    @classmethod
    @tool
    def f(cls) -> int:
        return 1


class _Property(BaseAdapter):
    @property
    @tool
    def f(self) -> int:
        return 1


class _Cached(BaseAdapter):
    @functools.cached_property
    @tool
    def f(self) -> int:
        return 1


class _Setup(BaseAdapter):
    @tool
    def setup(self) -> None:
        """A tool."""


class _Tools(BaseAdapter):
    @tool
    def tools(self) -> Any:
        """A tool."""


class _Override(_Base):
    def known(self) -> int:
        return 2


class _NoYield(BaseAdapter):
    @tool
    def f(self, n: int) -> Iterator[int]:
        return iter(range(n))


class _AsyncNoYield(BaseAdapter):
    @tool
    async def f(self, n: int) -> AsyncIterator[int]:
        raise AssertionError(n)


class _NoAsync(BaseAdapter):
    @tool
    def f(self, n: int) -> AsyncIterator[int]:  # type: ignore[misc]
        yield n


class _NoAsyncAtAll(BaseAdapter):
    @tool
    def f(self, n: int) -> Awaitable[int]:
        raise AssertionError(n)


class _Neither(BaseAdapter):
    @tool
    def f(self, n: int) -> AsyncIterator[int]:
        raise AssertionError(n)


class _TwoContexts(BaseAdapter):
    @tool
    def f(self, one: SessionContext, two: SessionContext) -> None:
        raise AssertionError(one, two)


class _MaybeContext(BaseAdapter):
    @tool
    def f(self, context: SessionContext | None = None) -> None:
        raise AssertionError(context)


class _YieldingSetup(BaseAdapter):
    def setup(self) -> Iterator[int]:
        yield 1


class _WaitingEnd(BaseAdapter):
    async def session_ended(self, session_id: str) -> None:  # type: ignore[override]
        raise AssertionError(session_id)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (_NoParameters, r"tool 'f' of _NoParameters has no parameter: a tool is a method, write `self`"),
        (_NoSelf, r"tool 'f' of _NoSelf has 'n' as its first parameter: .* write `self` before the others"),
        (_KeywordOnly, r"has 'n' as its first parameter"),
        (_Static, r"tool 'f' of _Static is a staticmethod, and tools are plain methods: remove that decorator"),
        (_StaticAround, r"tool 'f' of _StaticAround is a staticmethod"),
        (_Class, r"tool 'f' of _Class is a classmethod"),
        (_ClassAround, r"tool 'f' of _ClassAround is a classmethod"),
        (_Property, r"tool 'f' of _Property is a property"),
        (_Cached, r"tool 'f' of _Cached is a cached_property"),
        (_Setup, r"tool 'setup' of _Setup takes the place of BaseAdapter.setup: .* @tool\(name='setup'\)"),
        (_Tools, r"takes the place of BaseAdapter.tools"),
        (
            _Override,
            r"_Override.known replaces the tool 'known' of _Base and has no @tool: add it, or write known = No",
        ),
        (
            _NoYield,
            r"tool 'f' of _NoYield says that it returns .*Iterator\[int\] and has no `yield`: `yield` its items",
        ),
        (_AsyncNoYield, r"has no `yield`"),
        (_NoAsync, r"has no `async`: write `async def`"),
        (_NoAsyncAtAll, r"has no `async`: write `async def`"),
        (_Neither, r"has no `async` and no `yield`: write `async def`, and `yield` its items"),
        (_TwoContexts, r"tool 'f' of _TwoContexts has two parameters for its context, one and two: remove one"),
        (_MaybeContext, r"context is .*SessionContext \| None: annotate the context alone"),
        (_YieldingSetup, r"_YieldingSetup.setup has a `yield`"),
        (_WaitingEnd, r"session_ended must not wait: write `def`"),
    ],
)
def test_tools_that_are_written_wrongly(kind: type[BaseAdapter], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        # `tools` of an adapter that has a tool of that name is that tool.
        BaseAdapter.tools(kind())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("x", r"@tool\('x'\) names nothing: write @tool\(name='x'\)"),
        (property(lambda self: 1), "@tool marks methods, and <property .* is a property"),
        (int, "@tool marks methods, and <class 'int'> is a type"),
        (3, "@tool marks methods, and 3 is a int"),
    ],
)
def test_what_cannot_be_marked(function: Any, message: str) -> None:
    mark: Callable[[Any], Any]
    for mark in (tool, tool(name="y")):
        with pytest.raises(UsageError, match=message):
            mark(function)


def test_what_is_written_well() -> None:
    class Fine(_Base):
        known = None  # type: ignore[assignment]

        @tool(name="close")
        def shut(_self) -> int:  # noqa: N805
            return 1

        @tool
        @functools.cache  # noqa: B019
        def wrapped(self) -> int:
            return 2

        @tool
        def rows(self) -> Iterator[int]:
            yield from range(3)

    class Finer(Fine):
        @tool
        def known(self) -> int:  # type: ignore[override]
            return 3

    assert list(Fine().tools()) == ["rows", "close", "wrapped"]
    assert Finer().tools()["known"].function() == 3


def test_a_context_without_a_hint_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Rag(BaseAdapter):
        @tool
        def answer(self, question, context):  # type: ignore[no-untyped-def]
            raise AssertionError(question, context)

    assert len(Rag().tools()["answer"].spec.parameters) == 2
    assert "tool 'answer' of" in caplog.text
    assert "annotate it with SessionContext" in caplog.text
