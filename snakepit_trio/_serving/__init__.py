"""Serving a pool's tools to programs that speak other protocols than ours."""
