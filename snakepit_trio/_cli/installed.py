"""`snakepit tools --installed`: lists what other packages offer to pools."""

from __future__ import annotations

import json

import attrs
import click

from bridge_py.wire.readable import readable
from snakepit_trio._config.plugins import Plugin, installed


def show_installed(*, as_json: bool) -> None:
    """Print adapters, codecs, stores and launchers of other packages. Nothing of theirs is imported."""
    found = installed()
    if as_json:
        click.echo(json.dumps([attrs.asdict(each) for each in found], indent=2))
    elif not found:
        click.echo("no installed package offers adapters, codecs, stores or launchers")
    else:
        for line in _lines(found):
            click.echo(line)


def _lines(found: list[Plugin]) -> list[str]:
    rows = [("kind", "name", "package", "stands for")]
    rows += [(each.kind, each.name, f"{each.package} {each.version}", each.target) for each in found]
    texts = [[readable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]
