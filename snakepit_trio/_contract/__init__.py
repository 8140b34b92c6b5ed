"""The wire contract of Snakepit, versions 0.4 to 0.13, as the host serves and speaks it."""
