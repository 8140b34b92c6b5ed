"""How users write tools: adapters, the context of a call, and type hints, which are enforced."""
