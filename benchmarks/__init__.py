"""Benchmarks against the pools that one would take otherwise."""
