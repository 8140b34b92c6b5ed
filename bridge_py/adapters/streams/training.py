"""Trains a small network by epochs, on scikit-learn's digits or the caller's table, on all or a shard of it."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

import numpy as np

from bridge_py import InvalidArguments, UsageError

from .configs import ModelConfig, TrainingConfig
from .files import TextSource
from .libraries import need
from .network import Array, Network, batches

Record = dict[str, Any]
_TOOL: Final = "distributed_training"
_NO_LABELS: Final = frozenset({"", "nan", "nat", "<na>"})  # texts that libraries write for missing labels


class Data(NamedTuple):
    """Rows (float64, rows x features), and the class of each row as an index into `classes`."""

    rows: Array
    targets: Array
    classes: Array
    are_digits: bool = False


def train(
    model: ModelConfig,
    training: TrainingConfig,
    dataset_path: str | None,
    output_path: str | None,
    shard: int,
    shards: int,
    initial_weights: Sequence[Array] | None,
    return_weights: bool,
) -> Iterator[Record]:
    """Train; `Showcase.distributed_training` describes the chunks."""
    _check(output_path, shard, shards)
    data = load_digits(_TOOL) if dataset_path is None else load(dataset_path)
    for_learning, held_back = split(len(data.rows), training)
    learned = for_learning[shard::shards]
    if shards > len(for_learning):
        raise InvalidArguments(
            f"{_TOOL}: {len(for_learning)} rows to learn from are too few for {shards} shards", "shards"
        )
    network = Network.fresh(model, data.rows[for_learning], data.classes)
    if initial_weights is not None:
        network.replace_weights(initial_weights)
    run = _Run(network, training, data, learned, held_back, shard)
    yield from run.epochs()
    network.weights = run.best_weights
    if output_path is not None:
        network.save(output_path, learned if data.are_digits else np.array([], dtype=int))
    final: Record = {**run.totals(), "rows": len(learned), "is_final": True}
    yield (
        final
        | ({"final_model_path": output_path} if output_path else {})
        | ({"weights": network.weights} if return_weights else {})
    )


class _Run:
    """One training: its progress, and its best result so far."""

    def __init__(
        self, network: Network, config: TrainingConfig, data: Data, learned: Array, held_back: Array, shard: int
    ) -> None:
        self._network = network
        self._config = config
        self._learn = data.rows[learned], data.targets[learned]
        self._hold = data.rows[held_back], data.targets[held_back]
        self._rng = np.random.default_rng([config.seed, shard])
        self._speeds = [np.zeros_like(weight) for weight in network.weights]
        self._epoch = self._best_epoch = 0
        self._best = (-1.0, 0.0)  # accuracy, and the negative loss: the greatest is the best
        self._stopped_early = False
        self.best_weights = network.weights

    def epochs(self) -> Iterator[Record]:
        """Train, and yield a chunk for each epoch, until there was no better result for `patience` epochs."""
        self._compare(*self._network.measure(*self._hold))
        for epoch in range(1, self._config.epochs + 1):
            self._epoch = epoch
            rate = self._config.learning_rate * self._config.decay ** (self._epoch - 1)
            self._learn_once(rate)
            train_loss, train_acc = self._network.measure(*self._learn)
            val_loss, val_acc = self._network.measure(*self._hold)
            if not np.isfinite(train_loss) or not np.isfinite(val_loss):
                raise UsageError(
                    f"{_TOOL}: the loss is {train_loss} in epoch {self._epoch}: lower learning_rate={rate}"
                )
            self._compare(val_loss, val_acc)
            found = {"train_loss": train_loss, "val_loss": val_loss, "train_acc": train_acc, "val_acc": val_acc}
            yield {"epoch": self._epoch, **found, "learning_rate": rate, "is_final": False}
            if self._epoch - self._best_epoch >= self._config.patience and self._epoch < self._config.epochs:
                self._stopped_early = True
                break

    def totals(self) -> Record:
        """Return the results for the last chunk."""
        found = {"best_val_accuracy": self._best[0], "best_val_loss": -self._best[1], "best_epoch": self._best_epoch}
        return {**found, "epochs_run": self._epoch, "stopped_early": self._stopped_early}

    def _learn_once(self, rate: float) -> None:
        rows, targets = self._learn
        weights = self._network.weights
        for chosen in batches(len(rows), self._config.batch_size, self._rng):
            for weight, speed, slope in zip(
                weights, self._speeds, self._network.gradients(rows[chosen], targets[chosen]), strict=True
            ):
                speed *= self._config.momentum
                speed -= rate * slope
                weight += speed

    def _compare(self, val_loss: float, val_acc: float) -> None:
        if (val_acc, -val_loss) > self._best:
            self._best = (val_acc, -val_loss)
            self._best_epoch = self._epoch
            self.best_weights = [weight.copy() for weight in self._network.weights]


def split(rows: int, config: TrainingConfig) -> tuple[Array, Array]:
    """Split rows into indices to learn from, and indices held back, the same for all shards.

    Raises `UsageError` if there would be none to learn from, or none held back.
    """
    order = np.random.default_rng(config.seed).permutation(rows)
    held = round(rows * config.validation_split)
    if held in (0, rows):
        raise UsageError(f"{_TOOL}: {rows} rows are too few for validation_split={config.validation_split}")
    return order[held:], order[:held]


def load_digits(tool: str) -> Data:
    """Load 1797 images of handwritten digits, 64 numbers from 0 to 16 each. Raises `UsageError` without sklearn."""
    rows, targets = need("sklearn.datasets", tool).load_digits(return_X_y=True)
    return Data(rows, targets, np.arange(10), are_digits=True)


def load(path: str) -> Data:
    """Read rows and labels from `.npz` (arrays `X` and `y`) or CSV (a header; the last column is the label).

    Raises `UsageError`, which names the file and the fault, and `OSError`.
    """
    rows, labels = _load_npz(path) if path.endswith(".npz") else _load_csv(path)
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or 0 in rows.shape:
        raise UsageError(f"{_TOOL}: {path}: X is {rows.shape} and y {labels.shape}, not (rows, features) and (rows,)")
    if not np.isfinite(rows).all():
        raise UsageError(f"{_TOOL}: {path}: row {int(np.argwhere(~np.isfinite(rows))[0][0]) + 1} has a nan or infinity")
    _check_labels(labels, path)
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UsageError(f"{_TOOL}: {path}: all rows have the label {classes[0]}")
    return Data(rows, targets, classes)


def _check_labels(labels: Array, path: str) -> None:
    """Raise `UsageError` for the first row without a usable label: nan, infinite, NaT or empty."""
    if labels.dtype.kind in "USTO":
        bad = np.array([str(label).strip().casefold() in _NO_LABELS for label in labels])
    elif labels.dtype.kind in "mM":
        bad = np.isnat(labels)
    else:
        bad = ~np.isfinite(labels)
    if bad.any():
        row = int(bad.argmax())
        raise UsageError(f"{_TOOL}: {path}: row {row + 1} has no label, but {str(labels[row])!r}")


def _load_npz(path: str) -> tuple[Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["X"].astype(np.float64), file["y"]
    except (ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{_TOOL}: {path} has no arrays X and y without pickle: {error}") from error


def _load_csv(path: str) -> tuple[Array, Array]:
    rows, labels = [], []
    with closing(TextSource(path, _TOOL)) as file:
        reader = csv.reader(line.decode("utf-8", "replace") for line in iter(file.readline, b""))
        try:
            next(reader, None)
            for row in filter(None, reader):
                rows.append([float(cell) for cell in row[:-1]])
                if len(row) != len(rows[0]) + 1:
                    raise ValueError("another number of cells than those before")
                labels.append(row[-1])
        except (ValueError, csv.Error) as error:
            raise UsageError(f"{_TOOL}: {path}, line {reader.line_num}: {error}") from None
    return np.array(rows, dtype=np.float64), np.array(labels)


def _check(output_path: str | None, shard: int, shards: int) -> None:
    if shards < 1:
        raise InvalidArguments(f"{_TOOL}: shards={shards} must be 1 or more", "shards")
    if not 0 <= shard < shards:
        raise InvalidArguments(f"{_TOOL}: shard={shard} must be from 0 to {shards - 1}, for shards={shards}", "shard")
    if output_path is not None and not os.path.isdir(os.path.dirname(os.path.abspath(output_path))):
        raise InvalidArguments(f"{_TOOL}: output_path={output_path!r}: there is no such folder", "output_path")
