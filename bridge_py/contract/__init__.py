"""The wire contract, for both sides: `BridgeService` of proto/snakepit_bridge.proto, spoken and served.

Only loaded where it is needed: a worker of our own that speaks the link starts without it.
"""
