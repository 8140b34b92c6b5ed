"""`python -m snakepit_trio` is `snakepit`."""

from ._cli.main import main

if __name__ == "__main__":
    main(prog_name="snakepit")
