"""Profiles of Hypothesis."""

from hypothesis import Phase, settings

from tests.helpers.no_processes import no_process_is_started

__all__ = ["no_process_is_started"]

pytest_plugins = ["tests.helpers.timeouts"]

# The first example that fails is enough: `make mutants` only wants to know whether there is one.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], print_blob=False)

# For `make quick`: the examples are the same each time.
settings.register_profile("quick", settings.get_profile("ci"), max_examples=25)

# What `make fuzz` tries in each round, of tests that do not say how many examples they try.
settings.register_profile("fuzz", max_examples=1000)
