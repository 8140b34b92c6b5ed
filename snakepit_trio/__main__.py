"""`python -m snakepit_trio` runs the command `snakepit`."""

from ._cli.main import main

if __name__ == "__main__":
    main(prog_name="snakepit")
