"""The showcase's models and indicators: their numbers against scikit-learn, numpy and TA-Lib."""

from __future__ import annotations

import gzip
import pickle
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model
import sklearn.metrics
import talib

import snakepit_trio as snakepit
from bridge_py import InvalidArguments, UsageError
from bridge_py.adapters.streams import inference, libraries, stocks, training
from bridge_py.adapters.streams.configs import AlertThresholds, ModelConfig, TrainingConfig
from bridge_py.adapters.streams.indicators import Ema, Macd, Rsi, Sma
from bridge_py.adapters.streams.network import Network
from snakepit_trio.testing import InMemory
from tests.helpers.showcase_data import DIGITS, PRICES, TRUTHS, Chunk, stream


def train(model: Chunk | None = None, config: Chunk | None = None, **more: Any) -> list[Chunk]:
    """Train here."""
    usual = {"dataset_path": None, "output_path": None, "shard": 0, "shards": 1}
    usual |= {"initial_weights": None, "return_weights": False}
    return list(training.train(ModelConfig(**model or {}), TrainingConfig(**config or {}), **{**usual, **more}))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r"inference needs scikit-learn, .*: pip install 'snakepit-trio\[ml\]'"):
        libraries.need("sklearn.datasets", "inference")


@pytest.fixture
async def pool_in_memory() -> AsyncIterator[snakepit.Pool]:
    """A pool without processes: what is wrong with arguments is told before anything happens."""
    async with snakepit.open_pool(workers=1, launcher=InMemory()) as pool:
        yield pool


def test_all_ways_to_give_an_image_are_the_same(tmp_path: Path) -> None:
    digit = DIGITS[1234].reshape(8, 8)
    large = np.kron(digit, np.ones((2, 3)))
    plain, raw, wide = tmp_path / "plain.pgm", tmp_path / "raw.pgm", tmp_path / "wide.pgm"
    rows = "\n".join(" ".join(map(str, row)) for row in digit.astype(int))
    plain.write_text(f"P2\n# drawn by hand\n8 8 # sides\n16\n{rows}\n")
    raw.write_bytes(b"P5 24 16 16\n" + large.astype(np.uint8).tobytes())
    wide.write_bytes(b"P5\n8 8\n1600\n" + (digit * 100).astype(">u2").tobytes())
    items = [1234, digit, digit.ravel().tolist(), str(plain), str(raw), str(wide)]
    *found, final = inference.infer(None, items)
    assert len({(chunk["prediction"], round(chunk["confidence"], 6)) for chunk in found}) == 1
    assert [chunk["truth"] for chunk in found] == [TRUTHS[1234], None, None, None, None, None]
    assert final["unseen"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6 8 8 255\n", "no PGM image"),
        (b"P5 8 8 16\nabc", "is 8 x 8, of 0 to 16, and has 3 pixels"),
        (b"P5 7 8 16\n" + bytes(56), "both sides must be multiples of 8"),
    ],
)
def test_bad_items_are_told_and_the_others_go_on(tmp_path: Path, content: bytes, message: str) -> None:
    image = tmp_path / "image.pgm"
    image.write_bytes(content)
    bad = [str(image), str(tmp_path / "lost"), 1797, [1.0, 2.0], [float("nan")] * 64, {"a": 1}]
    *found, last, final = inference.infer(None, [*bad, 1500])
    assert message in found[0]["error"]
    assert [chunk["error"].partition(":")[0] for chunk in found[1:3]] == ["FileNotFoundError", "UsageError"]
    assert "the item has 2 numbers, and the model takes 64" in found[3]["error"]
    assert "prediction" in last
    assert (final["count"], final["errors"]) == (7, 6)


# Training


@pytest.mark.parametrize("model", [{}, {"architecture": "mlp", "layers": 2, "hidden_size": 5}])
def test_gradients_are_slopes(model: Chunk) -> None:
    rng = np.random.default_rng(4)
    rows, targets = rng.normal(size=(20, 3)), rng.integers(0, 4, 20)
    network = Network.fresh(ModelConfig(**model), rows, np.arange(4))
    for weight, slopes in zip(network.weights, network.gradients(rows, targets), strict=True):
        for index in np.ndindex(weight.shape):
            losses = []
            for step in (1e-6, -2e-6):
                weight[index] += step
                losses.append(network.measure(rows, targets)[0])
            weight[index] += 1e-6
            assert slopes[index] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-6)


def test_losses_and_accuracies_are_those_of_scikit_learn() -> None:
    config = TrainingConfig()
    *epochs, final = train(return_weights=True)
    learned, held = training.split(len(DIGITS), config)
    shift, scale = DIGITS[learned].mean(axis=0), DIGITS[learned].std(axis=0)
    network = Network(final["weights"], shift, np.where(scale > 0, scale, 1), np.arange(10))
    probabilities = network.probabilities(DIGITS[held])
    best = epochs[final["best_epoch"] - 1]
    assert (
        best["val_loss"]
        == final["best_val_loss"]
        == pytest.approx(sklearn.metrics.log_loss(TRUTHS[held], probabilities))
    )
    assert best["val_acc"] == sklearn.metrics.accuracy_score(TRUTHS[held], probabilities.argmax(axis=1))
    regression = sklearn.linear_model.LogisticRegression(max_iter=5000).fit(DIGITS[learned] / 16, TRUTHS[learned])
    assert final["best_val_accuracy"] > regression.score(DIGITS[held] / 16, TRUTHS[held]) - 0.03


def test_epochs_decay_and_early_stop() -> None:
    *epochs, final = train(config={"learning_rate": 0.2, "decay": 0.9, "patience": 3})
    assert [chunk["epoch"] for chunk in epochs] == list(range(1, final["epochs_run"] + 1))
    assert [chunk["learning_rate"] for chunk in epochs] == pytest.approx([0.2 * 0.9**n for n in range(len(epochs))])
    assert final["stopped_early"]
    assert final["epochs_run"] == final["best_epoch"] + 3 < 100
    assert final["best_val_accuracy"] == max(chunk["val_acc"] for chunk in epochs)
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert "weights" not in final
    assert "final_model_path" not in final
    assert train(config={"learning_rate": 0.2, "decay": 0.9, "patience": 3})[-1] == final  # by its seeds


def test_shards_share_the_rows_and_what_is_held_back() -> None:
    learned, held = training.split(100, TrainingConfig())
    assert sorted([*learned, *held]) == list(range(100))
    finals = [train(config={"epochs": 1}, shard=shard, shards=3)[-1] for shard in range(3)]
    assert sum(final["rows"] for final in finals) == 1797 - round(1797 * 0.2)


def test_tables_of_the_callers_own(tmp_path: Path) -> None:
    flowers, kinds = sklearn.datasets.load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[kinds]
    arrays, table = tmp_path / "iris.npz", tmp_path / "iris.csv"
    np.savez(arrays, X=flowers, y=names)
    lines = [",".join([*map(repr, row.tolist()), name]) for row, name in zip(flowers, names, strict=True)]
    table.write_text("\n".join(["a,b,c,d,kind", *lines]))
    finals = [train(dataset_path=str(path), output_path=str(tmp_path / "m"))[-1] for path in (arrays, table)]
    assert finals[0] == finals[1]
    assert finals[0]["best_val_accuracy"] >= 0.9
    found, final = inference.infer(str(tmp_path / "m"), [flowers[0]])
    assert (found["prediction"], final["accuracy"]) == ("setosa", None)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.path,)


def test_no_file_is_unpickled(tmp_path: Path) -> None:
    made, path, arrays = tmp_path / "made", tmp_path / "model.pkl", tmp_path / "model.npz"
    path.write_bytes(pickle.dumps(Evil(made)))
    np.savez(arrays, X=np.array([Evil(made)], dtype=object), y=np.array([1]), allow_pickle=True)
    for file in (path, arrays):
        with pytest.raises(UsageError, match="is no model that distributed_training has written"):
            inference.load_model(str(file))
    with pytest.raises(UsageError, match="no arrays X and y without pickle"):
        train(dataset_path=str(arrays))
    assert not made.exists()


@pytest.mark.parametrize(
    "labels",
    [[1, 2, np.nan], [1, 2, np.inf], ["a", "b", ""], ["a", "b", " "], ["a", "b", "nan"],
     np.array([1, 2, "NaT"], "M8[D]"), np.array([1, 2, "NaT"], "m8[D]")],
    ids=range(7),
)  # fmt: skip
def test_a_row_without_a_label_is_named(tmp_path: Path, labels: Any) -> None:
    np.savez(tmp_path / "d.npz", X=np.ones((3, 2)), y=labels)
    with pytest.raises(UsageError, match="row 3 has no label"):
        train(dataset_path=str(tmp_path / "d.npz"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_that_are_compressed_or_encoded(tmp_path: Path, encoding: str) -> None:
    rows = [f"{number},{'ä' if number % 2 else 'ö'}" for number in range(40)]
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress("\n".join(["x,y", *rows]).encode(encoding)))
    train(dataset_path=str(path), output_path=str(tmp_path / "m.npz"))
    assert sorted(np.load(tmp_path / "m.npz")["classes"]) == ["ä", "ö"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,y\n1,x\n2,\n3,y\n", "row 2 has no label, but ''"),
        ("a,y\n1,x\n2,NaN\n3,y\n", "row 2 has no label, but 'NaN'"),
        ("a,y\n1,x\n2,x\n", "all rows have the label x"),
        ("a,y\n1,x\nlots,y\n", "line 3: could not convert string to float: 'lots'"),
        ("a,y\n1,x\n1,2,y\n", "line 3: another number of cells"),
        ("a,y\n1,x\nnan,y\n", "row 2 has a nan or infinity"),
        ("a,y\n", "not \\(rows, features\\)"),
        ("a,y\n1,x\n2,y\n", "2 rows are too few for validation_split=0.2"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        train(dataset_path=str(tmp_path / "a.csv"))


def test_a_loss_without_bounds_is_told() -> None:
    with pytest.raises(UsageError, match="lower learning_rate"), np.errstate(all="ignore"):
        train(model={"architecture": "mlp"}, config={"learning_rate": 1e200})


@pytest.mark.parametrize(
    ("args", "parameter", "message"),
    [
        ({"training_config": {"epoch": 3}}, "training_config", "unknown field `epoch`"),
        ({"training_config": {"validation_split": 1.0}}, "training_config", "validation_split"),
        ({"model_config": {"architecture": "transformer"}}, "model_config", "architecture"),
        ({"shard": 2, "shards": 2}, "shard", "shard=2 must be from 0 to 1"),
        ({"shards": 0}, "shards", "shards=0 must be 1 or more"),
        ({"shards": 10**6}, "shards", "too few for 1000000 shards"),
        ({"output_path": "/nowhere/model.npz"}, "output_path", "there is no such folder"),
    ],
)
async def test_wrong_arguments_of_training(
    pool_in_memory: snakepit.Pool, args: Chunk, parameter: str, message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        await stream(pool_in_memory, "distributed_training", **args)
    assert caught.value.parameter == parameter


# Stocks


def run(indicator: Any, prices: Any = PRICES) -> Any:
    """What it says of each price; nan where it says nothing."""
    return np.array([np.nan if (value := indicator.update(float(price))) is None else value for price in prices])


@pytest.mark.parametrize("period", [2, 5, 14, 50])
def test_indicators_are_those_of_ta_lib(period: int) -> None:
    np.testing.assert_allclose(run(Rsi(period)), talib.RSI(PRICES, period), rtol=1e-9)
    np.testing.assert_allclose(run(Sma(period)), talib.SMA(PRICES, period), rtol=1e-12)
    np.testing.assert_allclose(run(Ema(period)), talib.EMA(PRICES, period), rtol=1e-12)


def test_macd_is_that_of_ta_lib() -> None:
    macd = Macd()
    line, signal = np.array([macd.update(float(price)) for price in PRICES], dtype=float).T
    expected = talib.EMA(PRICES, 12) - talib.EMA(PRICES, 26)
    np.testing.assert_allclose(line, expected, atol=1e-10)
    np.testing.assert_allclose(signal[25:], talib.EMA(expected[25:], 9), atol=1e-10)
    # TA-Lib's own starts its fast average later, which is forgotten after some time.
    np.testing.assert_allclose(np.array([line, signal])[:, 250:], np.array(talib.MACD(PRICES)[:2])[:, 250:], atol=1e-8)


def test_the_index_without_losses_and_without_moves() -> None:
    assert run(Rsi(3), [1, 2, 3, 4])[-1] == 100
    assert run(Rsi(3), [4, 3, 2, 1])[-1] == 0
    assert run(Rsi(3), [4, 4, 4, 4])[-1] == 50


@pytest.mark.parametrize(
    ("tick", "message"),
    [
        ({"symbol": "A", "price": "much"}, "tick 2: the price is no number of 0 or more: 'much'"),
        ({"symbol": "A", "price": float("inf")}, "tick 2: the price is no number"),
        ({"symbol": "A", "price": 0}, "tick 2: the price is 0"),
        ({"symbol": "A", "price": 1, "volume": -1}, "tick 2: the volume is no number"),
        ({"price": 1}, "tick 2 has no symbol"),
        (5, "tick 2 is int"),
    ],
)
def test_bad_ticks_are_named(tick: Any, message: str) -> None:
    found = stocks.analyze([{"symbol": "A", "price": 1}, tick], None, ["RSI"], AlertThresholds())
    assert next(found)["price"] == 1
    with pytest.raises(UsageError, match=message):
        next(found)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_prices_are_read_as_people_have_them(encoding: str, pack: Any, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(pack('symbol,price\r\nA,1\r\n"Ä,B",2\r\n'.encode(encoding)))
    assert list(stocks.read_csv(str(path))) == [{"symbol": "A", "price": "1"}, {"symbol": "Ä,B", "price": "2"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04zip", "a ZIP archive"),
        (gzip.compress(b"symbol,price\nA,1\n" * 1000, mtime=0)[:60], "broken, or cut off"),
        (b'symbol,price\n"A,1\n' + b"B,2\n" * 100_000, "line [0-9]+: field larger than field limit"),
        (b"", "is empty"),
    ],
    ids=["zip", "cut", "quote", "empty"],
)
def test_prices_that_cannot_be_read_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        list(stocks.read_csv(str(path)))


@pytest.mark.parametrize(
    ("args", "parameter", "message"),
    [
        ({}, "prices", "give prices .* or feed"),
        ({"prices": [], "feed": "feed"}, "prices", "give prices .* or feed"),
        ({"prices": [], "indicators": ["SMA"]}, "indicators", "no indicator 'SMA'; there are"),
        ({"prices": [], "indicators": ["SMA_99999"]}, "indicators", "n up to 10000"),
        ({"prices": [], "alert_thresholds": {"rsi": 1}}, "alert_thresholds", "unknown field `rsi`"),
    ],
)
async def test_wrong_arguments_of_stocks(
    pool_in_memory: snakepit.Pool, args: Chunk, parameter: str, message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        await stream(pool_in_memory, "realtime_stock_analysis", **args)
    assert caught.value.parameter == parameter
