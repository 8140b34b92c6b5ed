"""Faults of workers in memory, and when they happen: `InMemory(faults=Faults(Die(tool="train")))`.

Each fault says what happens, to which workers, tools or batches, and at which of its occasions. `Faults.happened` lists
the faults that have happened, so that a test can tell why its application did what it did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

import attrs
import trio

from bridge_py.wire.errors import DecodeError, ProtocolError, UsageError
from bridge_py.wire.frames import decode_batch
from snakepit_trio._util.validation import is_number, refuse, seconds, whole, word

Direction = Literal["to_host", "to_worker"]


def _share(_fault: object, field: attrs.Attribute[Any], value: object) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise refuse(field.name, value, "give a number from 0 to 1")


_seconds: Any = seconds(or_zero=True)
_count: Any = whole(0)
_count_or_none: Any = whole(0, or_none="every time")


@attrs.frozen(kw_only=True)
class Fault:
    """What all faults have in common. Of the occasions that fit, the first `skip` pass; then it happens `times` times.

    `worker` is a pattern of worker ids, with `*`, `?` and `[...]`. A worker that is restarted keeps its id. With
    `times` None it happens every time.
    """

    worker: str = "*"
    skip: int = attrs.field(default=0, validator=_count)
    times: int | None = attrs.field(default=1, validator=_count_or_none)


@attrs.frozen(kw_only=True)
class RefuseStart(Fault):
    """A worker does not start. Each start is an occasion.

    `how` is "launch": there is no process at all; "exit": the worker ends with exit code 1 before it is ready; or
    "hang": it never says that it is ready.
    """

    how: Literal["launch", "exit", "hang"] = word("exit", ("launch", "exit", "hang"))


@attrs.frozen(kw_only=True)
class Die(Fault):
    """A worker dies, as if by SIGKILL. Each call of a tool that a worker gets is an occasion; `tool` is a pattern.

    `when` is "before": the call has come but not started, so that it may run elsewhere; "during": `after` seconds after
    its start; or "after": its code has run, but the host is not told.
    """

    tool: str = "*"
    when: Literal["before", "during", "after"] = word("during", ("before", "during", "after"))
    after: float = attrs.field(default=0.0, validator=_seconds)


@attrs.frozen(kw_only=True)
class IgnoreCancel(Fault):
    """A call goes on although it is cancelled. Each cancellation of a running call is an occasion.

    `tool` is a pattern.
    """

    tool: str = "*"


@attrs.frozen(kw_only=True)
class BatchFault(Fault):
    """A fault of a link. Each batch of frames in a direction is an occasion."""

    direction: Direction = word("to_host", ("to_host", "to_worker"))  # noqa: RUF009 - a field


@attrs.frozen(kw_only=True)
class Slow(BatchFault):
    """A batch comes `seconds` later. The batches behind it do not overtake it."""

    seconds: float = attrs.field(default=0.1, validator=_seconds)


@attrs.frozen(kw_only=True)
class Silence(BatchFault):
    """From a batch on, nothing more comes in that direction, although the worker lives."""


@attrs.frozen(kw_only=True)
class Split(BatchFault):
    """A batch comes frame by frame, `seconds` apart. This breaks no rule: links may do so."""

    seconds: float = attrs.field(default=0.0, validator=_seconds)


@attrs.frozen(kw_only=True)
class Cut(BatchFault):
    """Only the first part of a batch comes: the share `at` of its bytes (0 to 1). The link ends there."""

    at: float = attrs.field(default=0.5, validator=_share)


def _check_garbage(_fault: object, _attribute: object, data: bytes) -> None:
    # Such data would be skipped as a field of a newer peer. The batch would be lost, and links never lose one.
    with contextlib.suppress(DecodeError, ProtocolError):
        decode_batch(data)
        raise UsageError(f"{data!r} can be read as a batch of frames; for a batch of yours write a worker")


@attrs.frozen(kw_only=True)
class Garbage(BatchFault):
    """In place of a batch, data come that are no batch. Data that could be read as a batch are refused."""

    data: bytes = attrs.field(default=b"\xff\xff\xff\xff", validator=_check_garbage)


F = TypeVar("F", bound=Fault)


@attrs.frozen
class Happened:
    """A fault that has happened: when, in seconds of trio's clock, to which worker, `at` which tool or direction."""

    time: float
    worker: str
    fault: Fault
    at: str = ""


class Faults:
    """The faults of one launcher. If several fit an occasion, only the first of them happens."""

    def __init__(self, *faults: Fault) -> None:
        for fault in faults:
            if not isinstance(fault, Fault):
                raise UsageError(f"{fault!r} is no fault: give Die(...), Slow(...) or another one of testing.faults")
        #: The faults that are to happen.
        self.faults = faults
        #: The faults that have happened, in order.
        self.happened: list[Happened] = []
        self._passed = [0] * len(faults)

    def __repr__(self) -> str:
        return f"Faults({', '.join(map(repr, self.faults))})"

    def take(self, kind: type[F], worker: str, at: str = "") -> F | None:
        """Note an occasion for a kind of fault, at a tool or in a direction. Returns the fault that happens, if any."""
        for fault in self._due(kind, worker, at):
            self.happened.append(Happened(trio.current_time(), worker, fault, at))
            return fault
        return None

    def _due(self, kind: type[F], worker: str, at: str) -> Iterator[F]:
        for number, fault in enumerate(self.faults):
            if not isinstance(fault, kind) or not _fits(fault, worker, at):
                continue
            self._passed[number] += 1
            over = self._passed[number] - fault.skip
            if over > 0 and (fault.times is None or over <= fault.times):
                yield fault


def _fits(fault: Fault, worker: str, at: str) -> bool:
    if isinstance(fault, BatchFault):
        return fault.direction == at and fnmatchcase(worker, fault.worker)
    tool = getattr(fault, "tool", None)
    return fnmatchcase(worker, fault.worker) and (tool is None or fnmatchcase(at, tool))
