"""Whatever the system refuses to the host, at whichever step: calls end right or typed, and the pool heals and closes.

A sample of all steps and faults. All of them: `make chaos ARGS="--only host-faults"`.
"""

from __future__ import annotations

import time

import pytest

from benchmarks import host_faults
from benchmarks.host_faults import PHASES, Step, Trial

# What an error drops may be closed a moment later; what stays is found all the same.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
SECONDS = 25  # and the same trials each time, as far as the machine comes


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """The steps of a pool's life."""
    return host_faults.find_steps()


@pytest.mark.slow
def test_a_fault_at_a_step_of_chance(untraced_workers: None, steps: list[Step]) -> None:
    began = time.monotonic()
    walks = []
    for number, trial in enumerate(host_faults.sample(steps, seed=14)):
        if number >= 2 * len(PHASES) and time.monotonic() - began > SECONDS:
            break
        walks.append(trial.run())
    broken = [str(walk) for walk in walks if walk.problems]
    assert not broken, f"{len(broken)} of {len(walks)} trials:\n" + "\n".join(broken)
    assert sum(bool(walk.happened) for walk in walks) > len(walks) / 2  # the others do not come up each time


def test_the_walk_comes_by_what_it_must(steps: list[Step]) -> None:
    """The hooks see the steps on which life and death depend."""
    events = {phase: {step.event for step in steps if step.phase == phase} for phase in PHASES}
    spawning = {"subprocess.Popen", "os.pipe", "open", "trio._threads.start_thread_soon"}
    assert events["opening"] >= spawning | {"os.mkdir", "socket.__new__", "socket.bind"}
    assert events["serving"] >= spawning | {"os.memfd_create"}
    assert "open" in events["closing"]


def test_a_step_that_fails_is_noticed(steps: list[Step]) -> None:
    """The trials themselves work: a refused process fails the opening, and all that lasts does."""
    spawn = next(step for step in steps if step.event == "subprocess.Popen" and step.phase == "opening")
    walk = Trial(spawn, "EAGAIN", lasting=1.0).run()
    assert spawn in walk.happened
    assert len(walk.happened) > 1
