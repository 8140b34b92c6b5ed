"""The life of a worker, from its start to its replacement, and the calls that it has."""
