"""Recognizes handwritten digits, or the classes of a model of `distributed_training`, one item after the other."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from bridge_py import UsageError

from .libraries import need
from .network import Array, Network
from .training import load_digits

Record = dict[str, Any]
TRAINED_ON: Final = 1000  # digits that the built-in model learns from: the first ones
_SIDE: Final = 8
_WHITE: Final = 16.0  # the greatest value of a pixel of the digits
_TOOL: Final = "batch_inference"
_SPACE: Final = rb"(?:\s|#[^\n]*\n)+"
_PGM: Final = re.compile(rb"(P[25])" + 3 * (_SPACE + rb"(\d{1,9})") + rb"\s")
# The errors that a bad item may raise. The item's chunk tells the error, and the other items go on.
_BAD_ITEM: Final = (UsageError, OSError, ValueError, TypeError)


class Model(NamedTuple):
    """A model: probabilities (1 x classes) from a row (1 x features), and the digits that it has learned from."""

    probabilities: Callable[[Array], Array]
    classes: Array
    features: int
    trained_on: frozenset[int]


def infer(model_path: str | None, items: list[Any]) -> Iterator[Record]:
    """Predict; `Showcase.batch_inference` describes the chunks."""
    model = built_in_model() if model_path is None else load_model(model_path)
    known = right = errors = 0
    for item in items:
        try:
            chunk = _predict(model, item)
        except _BAD_ITEM as error:
            errors += 1
            chunk = {"item": _label(item), "error": f"{type(error).__name__}: {error}"}
        if chunk.get("truth") is not None and not chunk["in_training"]:
            known += 1
            right += chunk["prediction"] == chunk["truth"]
        yield {**chunk, "is_final": False}
    accuracy = right / known if known else None
    yield {"count": len(items), "errors": errors, "unseen": known, "accuracy": accuracy, "is_final": True}


@functools.cache
def built_in_model() -> Model:
    """Train scikit-learn's logistic regression on the first digits, once in each worker process."""
    linear_model = need("sklearn.linear_model", _TOOL)
    data = _digits()
    regression = linear_model.LogisticRegression(C=10.0, max_iter=5000)
    regression.fit(data[0][:TRAINED_ON] / _WHITE, data[1][:TRAINED_ON])
    return Model(
        lambda row: regression.predict_proba(row / _WHITE),
        regression.classes_,
        _SIDE * _SIDE,
        frozenset(range(TRAINED_ON)),
    )


def load_model(path: str) -> Model:
    """Load a model that `distributed_training` has written. Raises `UsageError` for any other file, and `OSError`."""
    network, trained_on = Network.load(path)
    return Model(network.probabilities, network.classes, network.features, frozenset(trained_on.tolist()))


def read_pgm(path: str) -> Array:
    """Read a grey image (PGM, P2 or P5): pixels from 0 to 1, shape (height, width). Raises `UsageError`, `OSError`."""
    with open(path, "rb") as file:
        data = file.read()
    match = _PGM.match(data)
    if match is None:
        raise UsageError(f"{path} is no PGM image (P2 or P5)")
    width, height, white = (int(field) for field in match.groups()[1:])
    body = data[match.end() :]
    if match[1] == b"P2":
        pixels = np.array(body.split(), dtype=np.float64)
    else:
        kind = np.dtype(">u1" if white < 256 else ">u2")
        pixels = np.frombuffer(body[: len(body) // kind.itemsize * kind.itemsize], kind)
    if pixels.size < width * height or 0 in (width, height, white):
        raise UsageError(f"{path}: the image is {width} x {height}, of 0 to {white}, and has {pixels.size} pixels")
    found: Array = pixels[: width * height].reshape(height, width) / white
    return found


def _predict(model: Model, item: Any) -> Record:
    truth = None
    if isinstance(item, int) and not isinstance(item, bool):
        row, truth = _digit(item)
    else:
        row = _shrink(read_pgm(item)) * _WHITE if isinstance(item, str) else np.asarray(item, dtype=np.float64)
    row = row.reshape(1, -1)
    if row.shape[1] != model.features or not np.isfinite(row).all():
        raise UsageError(f"the item has {row.shape[1]} numbers, and the model takes {model.features} finite ones")
    found = model.probabilities(row)[0]
    best = int(found.argmax())
    chunk = {"item": _label(item), "prediction": model.classes[best].item(), "confidence": float(100 * found[best])}
    return {**chunk, "truth": truth, "in_training": truth is not None and item in model.trained_on}


@functools.cache
def _digits() -> tuple[Array, Array]:
    data = load_digits(_TOOL)
    return data.rows, data.targets


def _digit(index: int) -> tuple[Array, int]:
    rows, targets = _digits()
    if not 0 <= index < len(rows):
        raise UsageError(f"there is no digit {index}; there are 0 to {len(rows) - 1}")
    return rows[index], int(targets[index])


def _shrink(image: Array) -> Array:
    """Shrink an image to the size of the digits, by means of blocks."""
    height, width = image.shape
    if height % _SIDE or width % _SIDE:
        raise UsageError(f"the image is {width} x {height}: both sides must be multiples of {_SIDE}")
    found: Array = image.reshape(_SIDE, height // _SIDE, _SIDE, width // _SIDE).mean(axis=(1, 3))
    return found


def _label(item: Any) -> Any:
    """Return the label of an item in its chunk: the item itself, or the shape of its array."""
    return item if isinstance(item, (int, str)) else f"array {np.shape(item)}"
