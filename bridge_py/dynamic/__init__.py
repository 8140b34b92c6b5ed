"""Python code called by its name: what may be reached, the objects that are kept, and DSPy programs."""
