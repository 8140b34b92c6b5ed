"""Both sides of the wire contract: the client and the server of `BridgeService` in proto/snakepit_bridge.proto.

The package is loaded only where it is needed: our own worker, which speaks the link, starts without it.
"""
