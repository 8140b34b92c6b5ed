"""Indicators of technical analysis, one price at a time in constant memory.

RSI and Wilder's smoothing: J. Welles Wilder, "New Concepts in Technical Trading Systems", 1978. MACD: Gerald Appel,
"Technical Analysis: Power Tools for Active Investors", 2005. Each average starts as the plain mean of its first prices;
each `update` takes a price and returns the indicator's value, or None while there are too few prices.
"""

from __future__ import annotations

import math
from collections import deque


class Sma:
    """Mean of the last `period` values."""

    def __init__(self, period: int) -> None:
        self._values: deque[float] = deque(maxlen=period)

    def update(self, value: float) -> float | None:
        """Take a value."""
        self._values.append(value)
        # Summed anew each time, because a running sum would carry rounding errors on forever.
        return math.fsum(self._values) / len(self._values) if len(self._values) == self._values.maxlen else None


class Smoothed:
    """Exponential average: each value moves it by the share `weight` of their difference."""

    def __init__(self, period: int, weight: float) -> None:
        self._period = period
        self._weight = weight
        self._first: list[float] = []
        self._average: float | None = None

    def update(self, value: float) -> float | None:
        """Take a value."""
        if self._average is not None:
            self._average += self._weight * (value - self._average)
            return self._average
        self._first.append(value)
        if len(self._first) == self._period:
            self._average = math.fsum(self._first) / self._period
            self._first.clear()
        return self._average


class Ema(Smoothed):
    """Exponential moving average with the usual weight, 2 / (period + 1)."""

    def __init__(self, period: int) -> None:
        super().__init__(period, 2 / (period + 1))


class Rsi:
    """Relative strength index: the share of gains in all moves, both smoothed by 1 / period; 50 without any move."""

    def __init__(self, period: int = 14) -> None:
        self._gains = Smoothed(period, 1 / period)
        self._losses = Smoothed(period, 1 / period)
        self._last: float | None = None

    def update(self, price: float) -> float | None:
        """Take a price."""
        last, self._last = self._last, price
        if last is None:
            return None
        gain = self._gains.update(max(price - last, 0.0))
        loss = self._losses.update(max(last - price, 0.0))
        if gain is None or loss is None:
            return None
        return 100 * gain / (gain + loss) if gain + loss else 50.0


class Macd:
    """Moving average convergence and divergence: the difference of two EMAs, and the EMA of that as its signal."""

    def __init__(self, fast: int = 12, slow: int = 26, signal: int = 9) -> None:
        self._fast = Ema(fast)
        self._slow = Ema(slow)
        self._signal = Ema(signal)

    def update(self, price: float) -> tuple[float | None, float | None]:
        """Take a price; returns the difference and its signal."""
        fast, slow = self._fast.update(price), self._slow.update(price)
        if fast is None or slow is None:
            return None, None
        return fast - slow, self._signal.update(fast - slow)
