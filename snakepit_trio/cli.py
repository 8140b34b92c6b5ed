"""The `snakepit` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .demo import Progress


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="snakepit-trio", prog_name="snakepit")
def main() -> None:
    """Worker processes for trio applications."""


@main.command()
@click.option("--path", type=click.Path(exists=True, path_type=Path), help="A source tree; the standard library if none.")
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Worker processes.")
@click.option("--chaos", is_flag=True, help="Kill workers with SIGKILL while it runs; the totals stay the same.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines in the tables.")
def demo(path: Path | None, workers: int, chaos: bool, top: int) -> None:
    """Measure the standard library's source in worker processes."""
    from .demo import Progress, source_files

    files = source_files(path)
    if not files:
        raise click.UsageError(f"there are no .py files below {path}")
    progress = Progress(files)
    try:
        _run_demo(progress, workers, chaos, top)
    except KeyboardInterrupt:
        click.echo(f"interrupted after {progress.done} of {len(files)} files", err=True)
        sys.exit(130)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        click.echo(f"interrupted after {progress.done} of {len(files)} files", err=True)
        sys.exit(130)
    sys.exit(1 if progress.failed or progress.left_over() else 0)


def _run_demo(progress: Progress, workers: int, chaos: bool, top: int) -> None:
    import trio
    from rich.console import Console

    from .demo import measure
    from .demo_view import report, show

    console = Console()
    console.print(f"{len(progress.files)} files, {workers} workers{', chaos' if chaos else ''}", highlight=False)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await measure(
                progress,
                workers=workers,
                chaos=chaos,
                started=lambda: nursery.start_soon(show, progress, console),
            )
            nursery.cancel_scope.cancel()

    trio.run(run)
    report(progress, console, top)
