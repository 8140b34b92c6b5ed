"""Functions and tools of a program with types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from bridge_py import BaseAdapter, tool


@dataclass(frozen=True)
class Order:
    price: float
    number: int = 1


class Tools(BaseAdapter):
    @tool
    def double(self, n: int) -> int:
        return 2 * n

    @tool
    async def later(self, order: Order, *, by: float = 1.0) -> Order:
        return Order(order.price * by)

    @tool
    def count(self, to: int) -> Iterator[int]:
        yield from range(to)

    @tool
    async def count_later(self, to: int) -> AsyncIterator[str]:
        for n in range(to):
            yield str(n)


def total(orders: list[Order], *, discount: float = 0.0) -> float:
    return sum(order.price for order in orders) * (1 - discount)


def named(*, first: str, last: str | None = None) -> str:
    return f"{first} {last}"


def priced(order: Order) -> float:
    return order.price


async def priced_later(order: Order) -> str:
    return str(order.price)


async def fetched(name: str, times: int = 1) -> bytes:
    return name.encode() * times


def lines(text: str) -> Iterator[str]:
    yield from text.splitlines()


async def ticks(to: int) -> AsyncIterator[float]:
    for n in range(to):
        yield float(n)


def listed(n: int) -> list[int]:
    return [n]


def nothing() -> None:
    pass
