"""The showcase's models and indicators in real workers; its adapter starts light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model
import sklearn.metrics
import talib
import trio

import snakepit_trio as snakepit
from bridge_py import InvalidArguments
from bridge_py.adapters.streams import inference
from tests.helpers.showcase_data import DIGITS, PRICES, TRUTHS, Chunk, stream


def test_the_adapter_imports_no_library_and_no_stream() -> None:
    code = (
        "import sys; import bridge_py.adapters.showcase; heavy = {'numpy', 'sklearn', 'pandas', 'pyarrow', 'trio'};"
        "print(sorted(heavy & set(sys.modules)), [m for m in sys.modules if 'adapters.streams.' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['bridge_py.adapters.streams.configs']"


# Inference


async def test_digits_are_recognized_as_scikit_learn_does(tmp_path: Path) -> None:
    regression = sklearn.linear_model.LogisticRegression(C=10.0, max_iter=5000)
    regression.fit(DIGITS[: inference.TRAINED_ON] / 16, TRUTHS[: inference.TRAINED_ON])
    items = [*range(1000, 1797), 5]
    async with snakepit.open_pool(workers=1) as pool:
        *found, final = await stream(pool, "batch_inference", batch_items=items)
    probabilities = regression.predict_proba(DIGITS[items] / 16)
    assert [chunk["item"] for chunk in found] == items
    assert [chunk["prediction"] for chunk in found] == probabilities.argmax(axis=1).tolist()
    assert [chunk["confidence"] for chunk in found] == pytest.approx(100 * probabilities.max(axis=1))
    assert [chunk["truth"] for chunk in found] == TRUTHS[items].tolist()
    assert [chunk["in_training"] for chunk in found] == [False] * 797 + [True]
    accuracy = regression.score(DIGITS[1000:] / 16, TRUTHS[1000:])
    assert final == {"count": 798, "errors": 0, "unseen": 797, "accuracy": accuracy, "is_final": True}


async def test_a_model_goes_round(tmp_path: Path) -> None:
    path = str(tmp_path / "model.npz")
    async with snakepit.open_pool(workers=1) as pool:
        model = {"architecture": "mlp", "hidden_size": 16}
        args = {"model_config": model, "training_config": {"epochs": 3}, "output_path": path}
        *_, trained = await stream(pool, "distributed_training", **args, return_weights=True)
        assert trained["final_model_path"] == path
        *_, used = await stream(pool, "batch_inference", batch_items=list(range(1797)), model_path=path)
        assert (used["unseen"], used["accuracy"]) == (round(1797 * 0.2), trained["best_val_accuracy"])
        again = {"model_config": model, "initial_weights": trained["weights"], "training_config": {"epochs": 0}}
        (measured,) = await stream(pool, "distributed_training", **again)
        assert measured["best_val_loss"] == trained["best_val_loss"]
        with pytest.raises(InvalidArguments, match="initial_weights have the shapes") as caught:
            await stream(pool, "distributed_training", **{**again, "model_config": {}})
        assert caught.value.parameter == "initial_weights"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]


async def test_ticks_of_a_csv_file_in_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    lines = [
        f"{symbol},{price!r},{100 + 150 * (n == 400)}" for n, price in enumerate(PRICES.tolist()) for symbol in "ABC"
    ]
    path.write_text("\n".join(["symbol,price,volume", *lines]))
    indicators = ["RSI", "MACD", "SMA_20", "EMA_5"]
    async with snakepit.open_pool(workers=1) as pool:
        args = {"prices": str(path), "symbols": ["A", "B"], "indicators": indicators}
        *found, final = await stream(pool, "realtime_stock_analysis", **args)
    of_a = [chunk for chunk in found if chunk["symbol"] == "A"]
    assert len(found) == 2 * len(of_a) == 2 * len(PRICES)
    assert [chunk["price"] for chunk in of_a] == PRICES.tolist()
    index = talib.RSI(PRICES, 14)
    np.testing.assert_allclose(np.array([chunk["rsi"] for chunk in of_a], dtype=float), index)
    np.testing.assert_allclose(np.array([chunk["sma_20"] for chunk in of_a], dtype=float), talib.SMA(PRICES, 20))
    expected = np.where(index <= 30, "BUY", np.where(index >= 70, "SELL", "HOLD")).tolist()
    assert {"BUY", "SELL", "HOLD"} == set(expected)
    assert [chunk["trading_signal"] for chunk in of_a] == expected
    assert [n for n, chunk in enumerate(of_a) if "volume_spike" in chunk["alerts"]] == [400]
    assert of_a[400]["volume_ratio"] == 2.5
    assert final["ticks"] == 3 * len(PRICES)
    signals = {name: expected.count(name) for name in ("BUY", "SELL", "HOLD")}
    assert final["symbols"]["B"] == {"ticks": 500, "last_price": PRICES[-1], "signals": signals}


async def test_a_feed_of_the_host_is_stopped_with_its_stream() -> None:
    closed = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def feed(symbols: list[str]) -> Iterator[Chunk]:
        try:
            while True:
                yield from ({"symbol": symbol, "price": 10} for symbol in symbols)
        finally:
            token.run_sync_soon(closed.set)

    async with snakepit.open_pool(workers=1) as pool:
        pool.expose(feed)
        async with pool.stream("realtime_stock_analysis", {"feed": "feed", "symbols": ["X"]}) as chunks:
            first = await anext(chunks)
        with trio.fail_after(60):
            await closed.wait()
        assert (first["symbol"], first["price"], first["trading_signal"]) == ("X", 10, "HOLD")
        assert pool.get_stats().running == 0
