"""`python -m benchmarks.memory`: whole pools in memory, opened, used, disturbed and closed, by the second of one core.

They are the scenarios of the property tests: see `property_tests/scenarios.py`.
"""

from __future__ import annotations

import logging
import statistics
import time

from property_tests.scenarios import FOR_EVER, Scenario
from snakepit_trio import testing

SCENARIOS = 300
ROUNDS = 5


def main() -> None:
    """Measure with faults and without, in turn."""
    logging.disable(logging.CRITICAL)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for faults, found in rates.items():
            found.append(_rate(range(number * SCENARIOS, (number + 1) * SCENARIOS), faults))
    for faults, found in rates.items():
        what = "with faults" if faults else "without faults"
        lowest, highest = min(found), max(found)
        print(f"{what}: {statistics.median(found):.0f} pools/s of CPU time ({lowest:.0f} to {highest:.0f})")


def _rate(seeds: range, faults: bool) -> float:
    began = time.process_time()
    for seed in seeds:
        testing.run(Scenario(seed, faults=faults).run, seed=seed, limit=FOR_EVER)
    return len(seeds) / (time.process_time() - began)


if __name__ == "__main__":
    main()
