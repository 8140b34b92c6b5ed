"""How tools are written: adapters, the context of a call, and type hints that are enforced."""
