"""The `snakepit` command."""
