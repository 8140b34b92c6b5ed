"""A small classifier in numpy: softmax regression, or a perceptron with hidden layers; and its file, without pickle.

First weights: K. He et al., "Delving Deep into Rectifiers", 2015. Momentum: B. T. Polyak, 1964.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bridge_py import InvalidArguments, UsageError

from .configs import ModelConfig

Array = npt.NDArray[Any]
_FORMAT: Final = "snakepit-trio network 1"


class Network:
    """The weights of all layers, the scaling of rows before the first layer, and the classes of the outputs.

    `weights` holds a matrix and a vector of each layer in turn, float64. `classes` are the labels, shape (classes,).
    """

    def __init__(self, weights: Sequence[Array], shift: Array, scale: Array, classes: Array) -> None:
        self.weights = [np.array(weight, dtype=np.float64) for weight in weights]
        self.shift = shift
        self.scale = scale
        self.classes = classes

    @classmethod
    def fresh(cls, config: ModelConfig, rows: Array, classes: Array) -> Network:
        """Make a network that has learned nothing, for rows such as these, shape (rows, features)."""
        rng = np.random.default_rng(config.seed)
        hidden = [] if config.architecture == "softmax" else [config.hidden_size] * config.layers
        sizes = [rows.shape[1], *hidden, len(classes)]
        weights: list[Array] = []
        for inputs, outputs in itertools.pairwise(sizes):
            weights += [rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)), np.zeros(outputs)]
        deviation = rows.std(axis=0)
        return cls(weights, rows.mean(axis=0), np.where(deviation > 0, deviation, 1.0), classes)

    @property
    def features(self) -> int:
        """How many numbers each row has."""
        return int(self.weights[0].shape[0])

    def probabilities(self, rows: Array) -> Array:
        """Return the probability of each class for each row: shape (rows, classes)."""
        return self._forward(rows)[-1]

    def measure(self, rows: Array, targets: Array) -> tuple[float, float]:
        """Return mean cross-entropy and accuracy; `targets` are indices into `classes`."""
        found = self.probabilities(rows)
        loss = -np.log(np.maximum(found[np.arange(len(rows)), targets], 1e-300)).mean()
        return float(loss), float((found.argmax(axis=1) == targets).mean())

    def gradients(self, rows: Array, targets: Array) -> list[Array]:
        """Return the gradients of the mean cross-entropy with respect to `weights`."""
        *inputs, outputs = self._forward(rows)
        delta = outputs.copy()
        delta[np.arange(len(rows)), targets] -= 1
        delta /= len(rows)
        found: list[Array] = []
        for layer in range(len(inputs) - 1, -1, -1):
            found[:0] = [inputs[layer].T @ delta, delta.sum(axis=0)]
            delta = (delta @ self.weights[2 * layer].T) * (inputs[layer] > 0)
        return found

    def replace_weights(self, weights: Sequence[Array]) -> None:
        """Take weights of the same shapes, such as the mean of several networks'. Raises `InvalidArguments`."""
        shapes = [np.shape(weight) for weight in weights]
        if shapes != (ours := [weight.shape for weight in self.weights]):
            text = f"distributed_training: initial_weights have the shapes {shapes}; this model has {ours}"
            raise InvalidArguments(text, "initial_weights")
        self.weights = [np.array(weight, dtype=np.float64) for weight in weights]

    def save(self, path: str, trained_on: Array) -> None:
        """Write a file, whole or not at all. `trained_on` are indices of digits that the network has learned from."""
        parts: dict[str, Any] = {f"weight_{number}": weight for number, weight in enumerate(self.weights)}
        parts |= {"shift": self.shift, "scale": self.scale, "classes": self.classes, "trained_on": trained_on}
        parts["format"] = np.array(_FORMAT)
        folder, name = os.path.split(os.path.abspath(path))
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with open(handle, "wb") as file:
                np.savez(file, allow_pickle=False, **parts)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str) -> tuple[Network, Array]:
        """Read a file of `save`; returns `trained_on` too. Raises `UsageError` for any other file, and `OSError`."""
        try:
            with np.load(path, allow_pickle=False) as file:
                parts = dict(file)
        except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise UsageError(f"{path} is no model that distributed_training has written: {error}") from error
        if str(parts.get("format")) != _FORMAT:
            raise UsageError(f"{path} is no model that distributed_training has written: it has no such mark")
        weights = [parts[f"weight_{number}"] for number in range(sum(name.startswith("weight_") for name in parts))]
        return cls(weights, parts["shift"], parts["scale"], parts["classes"]), parts["trained_on"]

    def _forward(self, rows: Array) -> list[Array]:
        """Return the inputs of each layer, and the probabilities."""
        values = [(rows - self.shift) / self.scale]
        for layer in range(0, len(self.weights), 2):
            outputs = values[-1] @ self.weights[layer] + self.weights[layer + 1]
            is_last = layer == len(self.weights) - 2
            values.append(_softmax(outputs) if is_last else np.maximum(outputs, 0))
        return values


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the indices of all rows in a random order, `size` at a time."""
    order = rng.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def _softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found
