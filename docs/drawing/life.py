"""Draws a worker's life: the table of its phases, by which the code works."""

from __future__ import annotations

from typing import Final

from snakepit_trio._workers.life import TABLE, Event, Phase

from . import svg

_WIDTH: Final = 96
_STEP: Final = 140  # from one phase to the next
_TOP: Final = 106
_LEFT: Final = 16
_SMALL: Final = ("middle", "small")


def draw() -> str:
    """The picture, as SVG. Phases stand in their order; moves by END go below, longer ones above."""
    phases = list(Phase)
    elements = [part for number, phase in enumerate(phases) for part in _phase(number, phase)]
    for phase, moves in TABLE.items():
        for event, following in moves.items():
            elements += _move(phases.index(phase), event, phases.index(following))
    words = "; ".join(
        f"{phase.value} to {following.value} by {event.value}"
        for phase, moves in TABLE.items()
        for event, following in moves.items()
    )
    width = 2 * _LEFT + _STEP * (len(phases) - 1) + _WIDTH
    return svg.picture(width, 240, f"The phases of a worker: {words}", elements)


def _phase(number: int, phase: Phase) -> list[str]:
    x = _LEFT + number * _STEP
    kind = "box" if phase in (Phase.STARTING, Phase.SPARE, Phase.READY) else "end"
    return [svg.box(x, _TOP, _WIDTH, 36, kind, 8), svg.text(x + _WIDTH / 2, _TOP + 23, phase.value, "middle")]


def _move(start: int, event: Event, end: int) -> list[str]:
    middle = _LEFT + _WIDTH / 2
    if end == start + 1:
        x, y = _LEFT + start * _STEP + _WIDTH, _TOP + 18
        return [
            svg.arrow(f"M{x:g} {y:g}H{x + _STEP - _WIDTH:g}"),
            svg.text(x + (_STEP - _WIDTH) / 2, y - 6, event.value, *_SMALL),
        ]
    below = event is Event.END
    # Moves to one phase come from several: each has a height and a place of its own.
    height = (end - start) * 30
    edge, turn = (_TOP + 36, _TOP + 36 + height) if below else (_TOP, _TOP - height)
    from_x, to_x = middle + start * _STEP + 8, middle + end * _STEP - 10 * (end - start) + 8
    return [
        svg.arrow(f"M{from_x:g} {edge:g}C{from_x:g} {turn:g} {to_x:g} {turn:g} {to_x:g} {edge:g}"),
        svg.text((from_x + to_x) / 2, edge + (turn - edge) * 0.75 + (14 if below else -6), event.value, *_SMALL),
    ]
