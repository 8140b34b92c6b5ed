"""The `snakepit` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

# Heavy imports are inside the commands, so that `snakepit --help` is there at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="snakepit-trio", prog_name="snakepit")
def main() -> None:
    """Worker processes for trio applications: when a call is over, it is over."""


@main.command()
def version() -> None:
    """Print the versions of snakepit, Python and trio."""
    import platform

    import trio

    from snakepit_trio import __version__

    click.echo(f"snakepit {__version__}, Python {platform.python_version()}, trio {trio.__version__}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps(as_json: bool) -> None:
    """List the pools of this user on this machine, with their workers. Pools of dead hosts are included."""
    from rich.console import Console

    from snakepit_trio._processes import registry

    from . import runs

    found = registry.runs()
    if as_json:
        click.echo(runs.as_json(found))
    else:
        runs.show(Console(), found)


@main.command()
def sweep() -> None:
    """Kill the workers that dead hosts have left, and remove their files. Living hosts are not touched."""
    from rich.console import Console

    from snakepit_trio._processes import registry

    from . import runs

    runs.show_swept(Console(), registry.sweep())


@main.command()
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A source tree; the standard library if not given.",
)
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Worker processes.")
@click.option("--chaos", is_flag=True, help="Kill workers with SIGKILL while it runs; the totals stay the same.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines in each table.")
def demo(path: Path | None, workers: int, chaos: bool, top: int) -> None:
    """Measure Python source in worker processes.

    The exit code is 0 if all files were measured and all worker processes are gone, 130 after Ctrl-C, and else 1.
    """
    try:
        _demo(path, workers, chaos, top)
    except KeyboardInterrupt:
        # Ctrl-C came before there were workers.
        click.echo("interrupted", err=True)
        sys.exit(130)


def _demo(path: Path | None, workers: int, chaos: bool, top: int) -> NoReturn:
    from snakepit_trio import WorkerStartError

    from .demo import files_of_demo, run
    from .progress import Progress

    root, files = files_of_demo(path)
    if not files:
        raise click.UsageError(f"there are no .py files below {root}")
    try:
        sys.exit(run(Progress(root, files), workers=workers, chaos=chaos, top=top))
    except WorkerStartError as error:
        raise click.ClickException("\n".join([str(error), *getattr(error, "__notes__", ())])) from error
