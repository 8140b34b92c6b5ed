"""The configuration of a pool: its settings, policies and limits, its adapter and its launcher."""
