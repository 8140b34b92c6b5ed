"""Calls of Python code by its name: the allow-list, the stored objects, and DSPy programs."""
