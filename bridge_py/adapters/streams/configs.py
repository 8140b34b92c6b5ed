"""Settings that callers give as dicts. Before the tool runs, a field that does not fit is refused by its name."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Operation = Literal["clean", "transform", "aggregate"]
Engine = Literal["auto", "pyarrow", "csv"]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]


class ModelConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """A network: `softmax` (no hidden layer) or `mlp` (`layers` of `hidden_size`), and `seed` for its first weights."""

    architecture: Literal["softmax", "mlp"] = "softmax"
    layers: Annotated[int, Meta(ge=1, le=32)] = 1
    hidden_size: Annotated[int, Meta(ge=1, le=4096)] = 32
    seed: Annotated[int, Meta(ge=0)] = 0


class TrainingConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """Training by gradient descent with momentum.

    After each epoch the learning rate is multiplied by `decay`. Training stops after `patience` epochs without a better
    result. `validation_split` is the share of rows held back. With 0 epochs the model is measured as it is.
    """

    epochs: Annotated[int, Meta(ge=0)] = 100
    batch_size: Count = 32
    learning_rate: Annotated[float, Meta(gt=0)] = 0.05
    decay: Annotated[float, Meta(gt=0, le=1)] = 0.98
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    patience: Count = 5
    validation_split: Share = 0.2
    seed: Annotated[int, Meta(ge=0)] = 0


class AlertThresholds(Struct, forbid_unknown_fields=True, frozen=True):
    """When a tick is worth a signal or an alert. `volume_spike` is a multiple of the mean of the 20 volumes before."""

    rsi_oversold: Annotated[float, Meta(ge=0, le=100)] = 30.0
    rsi_overbought: Annotated[float, Meta(ge=0, le=100)] = 70.0
    volume_spike: Annotated[float, Meta(gt=0)] = 2.0
