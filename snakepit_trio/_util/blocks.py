"""Blocks that say what to do when they are used without `async with`."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, _AsyncGeneratorContextManager
from typing import Any, NoReturn, ParamSpec, TypeVar

from bridge_py.wire.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")


class NotEntered(UsageError, AttributeError):
    """An attribute was asked of a block that has not been entered."""


class _Block(_AsyncGeneratorContextManager[Any]):
    """As `contextlib.asynccontextmanager` makes it, but each wrong use raises `UsageError` with the right one."""

    example = ""

    def _refuse(self, *_: object) -> NoReturn:
        raise UsageError(f"this is a block, which must be entered: write `{self.example}:`")

    __aiter__ = __await__ = __enter__ = __exit__ = __iter__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        raise NotEntered(f"there is no {name!r} before the block is entered: write `{self.example}:`")

    def __repr__(self) -> str:
        return f"<a block that has not been entered: {self.example}>"


def only_async(self: object) -> NoReturn:
    """Be the `__iter__` of an async iterator, hidden from type checkers."""
    raise UsageError(f"{type(self).__name__} come one by one: write `async for` in place of `for`")


def block(example: str) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """Make a function that returns a block of an async generator function, as `contextlib.asynccontextmanager` does.

    `example` shows how the block is entered. `await`, `with`, `for`, `async for` and attributes of the block itself
    raise `UsageError` with it.
    """
    kind: Any = type("_Block", (_Block,), {"example": example})

    def decorate(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
        @functools.wraps(function)
        def enterable(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            made: AbstractAsyncContextManager[T] = kind(function, args, kwargs)
            return made

        return enterable

    return decorate
