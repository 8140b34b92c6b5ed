"""The figures of `snakepit bench`: medians of rounds, as a table or as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

_WIDTHS: Final = (36, 12, 22, 10)
PEER: Final = "ProcessPoolExecutor"


@attrs.frozen
class Sample:
    """The calls of one round: the seconds that each took, and those from the first call to the end of the last."""

    times: Sequence[float]
    elapsed: float

    def quantile(self, part: float) -> float:
        """The time in milliseconds that this part of the calls did not exceed."""
        ordered = sorted(self.times)
        return 1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.times) / self.elapsed


@attrs.define
class Figure:
    """One figure of both sides, a value for each round. The peer has none of some, such as streams."""

    unit: str
    ours: list[float] = attrs.field(factory=list)
    peers: list[float] = attrs.field(factory=list)

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of the peer's: the median of the rounds that both have finished."""
        pairs = [one / other for one, other in zip(self.ours, self.peers, strict=False) if other]
        return statistics.median(pairs) if pairs else None


@attrs.define
class Results:
    """All figures so far, by name, in the order of their first measurement. `notes` are for the reader."""

    about: Mapping[str, Any]
    figures: dict[str, Figure] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)
    is_complete: bool = False

    def add(self, name: str, unit: str, value: float, *, is_peer: bool = False) -> None:
        """Note the value of a round."""
        figure = self.figures.setdefault(name, Figure(unit))
        (figure.peers if is_peer else figure.ours).append(value)

    def add_sample(self, name: str, sample: Sample, *, is_peer: bool = False) -> None:
        """Note the calls of a round: their quantiles and their rate."""
        for part in (50, 99):
            self.add(f"{name}, p{part}", "ms", sample.quantile(part / 100), is_peer=is_peer)
        self.add(name, "calls/s", sample.rate, is_peer=is_peer)

    def as_json(self) -> str:
        """All figures, with the values of each round."""
        found = [
            {
                "name": name,
                "unit": figure.unit,
                "snakepit": statistics.median(figure.ours) if figure.ours else None,
                "peer": statistics.median(figure.peers) if figure.peers else None,
                "ratio": figure.ratio,
                "snakepit_rounds": figure.ours,
                "peer_rounds": figure.peers,
            }
            for name, figure in self.figures.items()
        ]
        whole = {**self.about, "peer": PEER, "is_complete": self.is_complete, "notes": self.notes, "figures": found}
        return json.dumps(whole, indent=2)

    def as_lines(self) -> Iterator[str]:
        """The figures as a table."""
        yield _row("", "snakepit", PEER, "ratio")
        for name, figure in self.figures.items():
            ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x"
            yield _row(f"{name}, {figure.unit}", _shown(figure.ours), _shown(figure.peers), ratio)
        yield from self.notes


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(*cells: str) -> str:
    first, *others = zip(cells, _WIDTHS, strict=True)
    return "".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]).rstrip()
