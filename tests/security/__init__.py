"""Attacks, each with what holds against it."""
