"""A feed of prices is a function of the application; a worker pulls its ticks and tells what they mean.

It prints:

    AAPL: $118.07 - SELL (RSI: 86.4)
    AAPL: $119.99 - HOLD (RSI: 71.1)
    TSLA: $102.82 - BUY (RSI: 21.1)
    AAPL: 5 times the usual volume
    TSLA: 5 times the usual volume
    AAPL: $102.82 - BUY (RSI: 24.4)
    TSLA: $82.0 - HOLD (RSI: 25.2)
    TSLA: $80.08 - BUY (RSI: 22.4)
    TSLA: $81.24 - HOLD (RSI: 27.7)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import trio

import snakepit_trio as snakepit


def market(symbols: list[str]) -> Iterator[dict[str, Any]]:
    """Prices that never end. The worker takes a tick when it wants one."""
    for second in range(10**9):
        for shift, symbol in enumerate(symbols):
            price = 100 + 20 * math.sin(second / 15 + shift) + second % 3
            yield {"symbol": symbol, "price": round(price, 2), "volume": 5000 if second == 40 else 1000}


async def main() -> None:
    """Follow two symbols until each has had 60 ticks."""
    arguments = {
        "feed": "market",
        "symbols": ["AAPL", "TSLA"],
        "indicators": ["RSI", "MACD", "SMA_20"],
        "alert_thresholds": {"rsi_oversold": 25, "rsi_overbought": 75},
    }
    signals = {"AAPL": "HOLD", "TSLA": "HOLD"}
    async with snakepit.open_pool(workers=1) as pool:
        pool.expose(market)
        async with pool.stream("realtime_stock_analysis", arguments) as chunks:
            tick = 0
            async for chunk in chunks:
                symbol, signal = chunk["symbol"], chunk["trading_signal"]
                if signal != signals[symbol]:
                    print(f"{symbol}: ${chunk['price']} - {signal} (RSI: {chunk['rsi']:.1f})")
                    signals[symbol] = signal
                if "volume_spike" in chunk["alerts"]:
                    print(f"{symbol}: {chunk['volume_ratio']:.0f} times the usual volume")
                tick += 1
                if tick == 120:
                    break


if __name__ == "__main__":
    trio.run(main)
