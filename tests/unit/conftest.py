"""What is here runs in the test's own process: pure logic, fakes, pools with workers in memory, fake clocks."""

from tests.helpers.no_processes import no_process_is_started

__all__ = ["no_process_is_started"]
