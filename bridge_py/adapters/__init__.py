"""Adapters that come with snakepit-trio."""
