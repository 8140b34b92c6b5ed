"""Makes the pictures of the docs from the code, so that they cannot go stale: `make pictures`."""
