"""The `snakepit` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from .bench import bench
from .completion import completion
from .debug import debug
from .doctor import doctor
from .dump import dump
from .endings import ending
from .mcp import mcp
from .new import new
from .run import run
from .runs import ps, sweep
from .serve import serve
from .tools import tools
from .top import top

# Heavy imports are inside the commands, so that `snakepit --help` is there at once.


class _Commands(click.Group):
    """If the disk is full, help and versions end with a message, too, as the results of commands do."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with ending(runs_code=False):
            return super().main(*args, **kwargs)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="snakepit-trio", prog_name="snakepit")
def main() -> None:
    """Worker processes for trio applications: when a call is over, it is over.

    To begin: `snakepit doctor` says whether pools can work here, `snakepit demo` shows one at work, and `snakepit new
    NAME` makes a small project. An ADAPTER is the class, package.module:Class, that has the tools.
    """


main.add_command(bench)
main.add_command(completion)
main.add_command(debug)
main.add_command(doctor)
main.add_command(dump)
main.add_command(mcp)
main.add_command(new)
main.add_command(ps)
main.add_command(run)
main.add_command(serve)
main.add_command(sweep)
main.add_command(tools)
main.add_command(top)


@main.command()
def version() -> None:
    """Print the versions of snakepit, Python and trio.

    \b
    Example:
      snakepit version
    """  # noqa: D301 - \b is click's mark of lines to keep
    import platform

    import trio

    from snakepit_trio import __version__

    click.echo(f"snakepit {__version__}, Python {platform.python_version()}, trio {trio.__version__}")


@main.command()
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A source tree; the standard library if not given.",
)
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Worker processes.")
@click.option("--chaos", is_flag=True, help="Kill workers with SIGKILL while it runs; the totals stay the same.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines in each table.")
@click.option("--dashboard", is_flag=True, help="Serve the pool's dashboard, and go on until Ctrl-C.")
def demo(path: Path | None, workers: int, chaos: bool, top: int, dashboard: bool) -> None:
    """Measure Python source in worker processes.

    The exit code is 0 if all files were measured and all worker processes are gone, 3 if a worker cannot start, 130
    after Ctrl-C, and else 1.

    \b
    Examples:
      snakepit demo
      snakepit demo --path src --workers 4 --chaos
      snakepit demo --dashboard
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending():
        _demo(path, workers, chaos, top, dashboard)


def _demo(path: Path | None, workers: int, chaos: bool, top: int, dashboard: bool) -> NoReturn:
    from .demo import files_of_demo, run
    from .progress import Progress

    root, files = files_of_demo(path)
    if not files:
        raise click.UsageError(f"there are no .py files below {root}")
    sys.exit(run(Progress(root, files), workers=workers, chaos=chaos, top=top, dashboard=dashboard))
