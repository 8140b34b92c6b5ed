"""Property: broken bytes are read or refused by a documented error, in a bounded time, and end no process."""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any

import pytest

from bridge_py.wire.errors import DecodeError

from . import fuzz, fuzz_targets
from .fuzz import Report, Run
from .fuzz_target import Parts, Target
from .mutations import Mutations

# `make fuzz` reads a million.
INPUTS = {"frames": 2_000, "lane": 2_000, "values": 3_000, "tables": 1_500, "pickles": 2_000, "faults": 2_000}


@pytest.mark.processes
@pytest.mark.parametrize("target", fuzz_targets.TARGETS)
def test_broken_bytes_are_read_or_refused_by_a_documented_error(target: str) -> None:
    report = fuzz.carry_out(Run(target, 1, INPUTS[target], drawn=30))
    assert report.faults == []
    assert report.tried == INPUTS[target]
    assert 0 < report.refused < report.tried


@pytest.mark.processes
def test_the_end_of_the_process_is_a_fault() -> None:
    report = fuzz.carry_out(Run("none", 7, 100))
    assert [fault.partition("\n")[0] for fault in report.faults] == [
        "--replay none 7 0 --drawn 150: the process has ended, or hangs"
    ]


class _Failing(Target):
    """Refuses two inputs of three, and has a fault at each third."""

    errors = (DecodeError,)

    def valid(self, number: int, count: int) -> list[Parts]:
        del number, count
        self._read = 0
        return [(b"abc",)]

    def read(self, parts: Parts, chance: random.Random) -> None:
        del parts, chance
        self._read += 1
        if self._read % 3:
            raise DecodeError("refused")
        raise MemoryError("a fault")


class _Endless(_Failing):
    def read(self, parts: Parts, chance: random.Random) -> None:
        del parts, chance
        began = time.process_time()
        while time.process_time() - began < 20:
            pass


def _report(run: Run) -> tuple[str, list[str]]:
    with tempfile.TemporaryFile() as note:
        note.truncate(8)
        *faults, counts = fuzz._read_all(run, note)
    return counts, faults


def test_other_errors_are_faults_and_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz_targets.TARGETS, "failing", _Failing)
    counts, faults = _report(Run("failing", 3, 9))
    assert counts == "9 6"
    assert [fault.partition("\n")[0] for fault in faults] == [
        f"--replay failing 3 {number} --drawn 150" for number in (2, 5, 8)
    ]
    assert all("MemoryError: a fault" in fault for fault in faults)
    assert _report(Run("failing", 3, 100))[0] == "18 12", "a run ends after some faults"


def test_an_input_that_takes_too_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz_targets.TARGETS, "endless", _Endless)
    monkeypatch.setattr(fuzz, "_CPU_SECONDS", 0.1)
    counts, faults = _report(Run("endless", 3, 1))
    assert counts == "1 0"
    assert "it has not ended after 0.1 s of the processor's time" in faults[0]


@pytest.mark.parametrize("target", ["frames", "pickles"])
def test_an_input_is_made_again_from_its_seed_and_number(target: str) -> None:
    def made() -> list[Any]:
        found = fuzz_targets.TARGETS[target](5, 10)
        return [found.broken(random.Random(f"5 {number}")) for number in range(50)]

    inputs = made()
    assert inputs == made()
    assert len(set(inputs)) > 40


def test_mutations_change_bytes_and_have_a_bound() -> None:
    mutations = Mutations([b"token"], [b"other" * 9])
    data, changed = b"abcdefgh" * 4, 0
    for number in range(2_000):
        found = mutations.changed(random.Random(number), data)
        changed += found != data
        assert len(found) < 110_000
    assert changed > 1_600
    assert isinstance(mutations.changed(random.Random(1), b""), bytes)


def test_inputs_are_divided_into_runs() -> None:
    runs = fuzz.runs_of("frames", 60_000, 100)
    assert [(run.seed, run.inputs) for run in runs] == [(100, 25_000), (101, 25_000), (102, 10_000)]
    assert sum(fuzz_targets.SHARES.values()) == 1_000_000
    line = fuzz.line_of(Report("frames", 1_000, 900, ["x"]))
    assert line == "frames: 1,000 inputs, 900 refused by a documented error, 1 faults"
