"""Technical analysis of a feed of prices: indicators, alerts and a signal for each tick."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

from bridge_py import InvalidArguments, UsageError

from .configs import AlertThresholds
from .files import TextSource
from .indicators import Ema, Macd, Rsi, Sma

Record = dict[str, Any]
_TOOL: Final = "realtime_stock_analysis"
_INDICATOR: Final = re.compile(r"(RSI|SMA|EMA)_([1-9][0-9]{0,4})")
_LONGEST: Final = 10_000  # the largest number of prices in an average
_VOLUMES: Final = 20  # volumes before it that a spike is measured by


def analyze(
    ticks: Iterable[Any], symbols: list[str] | None, indicators: list[str], thresholds: AlertThresholds
) -> Iterator[Record]:
    """Analyze ticks; `Showcase.realtime_stock_analysis` describes the chunks. Raises `UsageError` for a bad tick."""
    wanted = None if symbols is None else frozenset(symbols)
    make = read_indicators(indicators)
    found: dict[str, _Symbol] = {}
    count = 0
    for count, tick in enumerate(ticks, start=1):
        symbol, price, volume = read_tick(count, tick)
        if wanted is None or symbol in wanted:
            if symbol not in found:
                found[symbol] = _Symbol(make(), thresholds)
            yield {"symbol": symbol, **found[symbol].take(price, volume), "is_final": False}
    yield {"ticks": count, "symbols": {name: each.totals() for name, each in found.items()}, "is_final": True}


def choose_ticks(
    prices: list[Record] | str | None, feed: str | None, stream: Callable[[str], Iterable[Any]]
) -> Iterable[Any]:
    """Open the source of ticks that the caller gave; `stream` opens a host tool by name. Raises `InvalidArguments`."""
    if (prices is None) == (feed is None):
        raise InvalidArguments(
            f"{_TOOL}: give prices (ticks, or the path of a CSV file) or feed, one of them", "prices"
        )
    if feed is not None:
        return stream(feed)
    return read_csv(prices) if isinstance(prices, str) else prices or []


def read_csv(path: str) -> Iterator[Record]:
    """Yield the ticks of a CSV file, which `TextSource` reads. Its header must name at least symbol and price."""
    with closing(TextSource(path, _TOOL)) as file:
        reader = csv.DictReader(line.decode("utf-8", "replace") for line in iter(file.readline, b""))
        try:
            yield from reader
        except csv.Error as error:
            raise UsageError(f"{_TOOL}: {path}, line {reader.line_num}: {error}") from None


def read_tick(number: int, tick: Any) -> tuple[str, float, float | None]:
    """Return symbol, price and volume of a tick; the volume may be missing. Raises `UsageError` for a bad tick."""
    if not isinstance(tick, Mapping):
        raise UsageError(f"{_TOOL}: tick {number} is {type(tick).__name__}, and no mapping with symbol and price")
    symbol, volume = tick.get("symbol"), tick.get("volume")
    if not isinstance(symbol, str) or not symbol:
        raise UsageError(f"{_TOOL}: tick {number} has no symbol: {dict(tick)!r:.200}")
    price = _positive(number, "price", tick.get("price"))
    if price == 0:
        raise UsageError(f"{_TOOL}: tick {number}: the price is 0")
    return symbol, price, None if volume in (None, "") else _positive(number, "volume", volume)


def read_indicators(names: list[str]) -> Callable[[], dict[str, Rsi | Macd | Sma | Ema]]:
    """Make the function that makes fresh indicators, by the names of their fields. Raises `InvalidArguments`."""
    kinds: dict[str, Callable[[], Rsi | Macd | Sma | Ema]] = {}
    for name in names:
        match = _INDICATOR.fullmatch(name)
        if name in ("RSI", "MACD"):
            kinds[name.lower()] = Rsi if name == "RSI" else Macd
        elif match and int(match[2]) <= _LONGEST:
            kinds[name.lower()] = _make({"RSI": Rsi, "SMA": Sma, "EMA": Ema}[match[1]], int(match[2]))
        else:
            text = f"{_TOOL}: no indicator {name!r}; there are: RSI, RSI_n, MACD, SMA_n, EMA_n, n up to {_LONGEST}"
            raise InvalidArguments(text, "indicators")
    return lambda: {name: kind() for name, kind in kinds.items()}


class _Symbol:
    """The state of one symbol."""

    def __init__(self, indicators: dict[str, Rsi | Macd | Sma | Ema], thresholds: AlertThresholds) -> None:
        self._indicators = indicators
        self._thresholds = thresholds
        self._usual_volume = Sma(_VOLUMES)
        self._usual: float | None = None
        self._signals = {"BUY": 0, "SELL": 0, "HOLD": 0}
        self._price = 0.0

    def take(self, price: float, volume: float | None) -> Record:
        """Take a tick; returns the fields of its chunk."""
        self._price = price
        values = self._update(price)
        rsi = next((value for name, value in values.items() if name.startswith("rsi")), None)
        signal, alerts = self._judge(rsi)
        ratio = self._volume_ratio(volume)
        if ratio is not None and ratio >= self._thresholds.volume_spike:
            alerts.append("volume_spike")
        self._signals[signal] += 1
        fields = {"price": price, "volume": volume, **values, "volume_ratio": ratio}
        return {**fields, "alerts": alerts, "trading_signal": signal}

    def totals(self) -> Record:
        """Return the symbol's part of the last chunk."""
        return {"ticks": sum(self._signals.values()), "last_price": self._price, "signals": self._signals}

    def _update(self, price: float) -> dict[str, float | None]:
        values: dict[str, float | None] = {}
        for name, indicator in self._indicators.items():
            if isinstance(indicator, Macd):
                line, signal = indicator.update(price)
                histogram = None if line is None or signal is None else line - signal
                values |= {name: line, f"{name}_signal": signal, f"{name}_histogram": histogram}
            else:
                values[name] = indicator.update(price)
        return values

    def _judge(self, rsi: float | None) -> tuple[str, list[str]]:
        if rsi is not None and rsi <= self._thresholds.rsi_oversold:
            return "BUY", ["rsi_oversold"]
        if rsi is not None and rsi >= self._thresholds.rsi_overbought:
            return "SELL", ["rsi_overbought"]
        return "HOLD", []

    def _volume_ratio(self, volume: float | None) -> float | None:
        """Return the volume as a multiple of the mean of the volumes before it."""
        if volume is None:
            return None
        usual, self._usual = self._usual, self._usual_volume.update(volume)
        return volume / usual if usual else None


def _make(kind: Callable[[int], Rsi | Sma | Ema], period: int) -> Callable[[], Rsi | Sma | Ema]:
    return lambda: kind(period)


def _positive(number: int, name: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or found < 0:
        raise UsageError(f"{_TOOL}: tick {number}: the {name} is no number of 0 or more: {value!r:.100}")
    return found
