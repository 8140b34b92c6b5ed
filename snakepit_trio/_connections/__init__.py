"""Connections, which carry calls to workers: one module for each protocol that workers speak."""
