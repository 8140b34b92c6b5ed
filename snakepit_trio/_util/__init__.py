"""Helpers for every room: logging, nurseries, threads, signals, validation, and the asyncio loop of connections."""
