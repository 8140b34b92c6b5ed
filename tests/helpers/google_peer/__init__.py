"""Peers of the wire contract that share no code with ours; all but stubs.py are started as scripts or by these."""
