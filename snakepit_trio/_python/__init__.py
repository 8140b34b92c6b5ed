"""`pool.python`: Python code called by its name in workers, the objects it leaves there, and DSPy."""
