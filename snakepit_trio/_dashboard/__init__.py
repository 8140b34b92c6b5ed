"""The dashboard of a pool: one page in a browser."""
