"""`python -m snakepit_trio` is `snakepit`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="snakepit")
