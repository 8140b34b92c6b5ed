"""Faults of a pool in memory, chosen by Hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from hypothesis import strategies as st

from snakepit_trio.testing.faults import (
    Cut,
    Die,
    Direction,
    Fault,
    Faults,
    Garbage,
    IgnoreCancel,
    RefuseStart,
    Silence,
    Slow,
    Split,
)

_GARBAGE: Any = st.binary(max_size=8).map(lambda data: b"\xff" * 10 + data)  # a number that is too long
_DIRECTIONS: Any = st.sampled_from(get_args(Direction))


def faults(*, tools: Sequence[str] = ("*",), spared_starts: int = 0) -> st.SearchStrategy[Fault]:
    """One fault of any kind. `tools` are patterns. The first `spared_starts` starts of workers succeed."""
    tool = st.sampled_from(list(tools))
    # The first batches are greetings, one for each start. A fault of a greeting keeps its worker from starting.
    batch: Any = {"direction": _DIRECTIONS, "skip": st.integers(spared_starts, spared_starts + 20)}
    return st.one_of(
        st.builds(Die, tool=tool, skip=st.integers(0, 5), when=st.sampled_from(["before", "during", "after"])),
        st.builds(IgnoreCancel, tool=tool, skip=st.integers(0, 2)),
        st.builds(Slow, **batch, seconds=st.sampled_from([0.01, 0.5, 5])),
        st.builds(Split, **batch, seconds=st.sampled_from([0, 0.01]), times=st.none()),
        st.builds(Silence, **batch),
        st.builds(Cut, **batch, at=st.floats(0, 1)),
        st.builds(Garbage, **batch, data=_GARBAGE),
        st.builds(
            RefuseStart,
            how=st.sampled_from(["launch", "exit", "hang"]),
            skip=st.integers(spared_starts, spared_starts + 5),
        ),
    )


def fault_plans(*, tools: Sequence[str] = ("*",), most: int = 3, spared_starts: int = 0) -> st.SearchStrategy[Faults]:
    """Up to `most` faults for a launcher. If the pool is to open, give the number of its workers as `spared_starts`."""
    chosen = st.lists(faults(tools=tools, spared_starts=spared_starts), max_size=most)
    return chosen.map(lambda found: Faults(*found))
