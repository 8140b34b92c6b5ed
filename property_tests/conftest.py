"""Profiles of Hypothesis."""

from hypothesis import Phase, settings

pytest_plugins = ["tests.timeouts"]

# The first example that fails is enough: `make mutants` only wants to know whether there is one.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], print_blob=False)
