"""What any room may use: logging, nurseries, threads, signals, validation, and the asyncio loop of connections."""
