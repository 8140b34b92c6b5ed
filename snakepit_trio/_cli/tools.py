"""`snakepit tools`: lists the tools of an adapter with their signatures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from .endings import ending
from .values import adapters

if TYPE_CHECKING:
    from bridge_py.wire.specs import ParameterSpec, ToolSpec
    from snakepit_trio._serving.schemas import ToolSchema

_WIDEST: Final = 50  # characters of the column of signatures


@click.command()
@click.argument("adapter", required=False, shell_complete=adapters)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the JSON Schemas of arguments and results.")
@click.option(
    "--installed", is_flag=True, help="List what installed packages offer: adapters, codecs, stores, launchers."
)
def tools(adapter: str | None, as_json: bool, installed: bool) -> None:
    """List the tools of ADAPTER, with their signatures.

    ADAPTER is package.module:Class or path/to/file.py:Class; by default it is what SNAKEPIT_ADAPTER or pyproject.toml
    names, else the showcase, which comes with snakepit. One worker is started to ask it. The exit code is 0, 2 for an
    invalid adapter, 3 if the worker cannot start, 130 after Ctrl-C, and else 1.

    \b
    Examples:
      snakepit tools
      snakepit tools my_app.tools:Tools
      snakepit tools my_app.tools:Tools --json
      snakepit tools --installed
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending():
        if installed:
            if adapter is not None:
                raise click.UsageError("--installed lists what all packages offer: leave ADAPTER out")
            from .installed import show_installed

            show_installed(as_json=as_json)
            return
        import trio

        specs, schemas = trio.run(_ask, adapter)
        if as_json:
            _print_json([_described(spec, schemas[spec.name]) for spec in specs])
        else:
            _print_table(specs, schemas)


async def _ask(adapter: str | None) -> tuple[list[ToolSpec], Mapping[str, ToolSchema]]:
    from snakepit_trio import open_pool
    from snakepit_trio._serving.schemas import tool_schemas

    async with open_pool(adapter, workers=1, name="tools") as pool:
        schemas = await tool_schemas(pool)
        return sorted((each.spec for each in pool.tools.list_tools()), key=lambda spec: spec.name), schemas


def _print_json(found: Sequence[dict[str, Any]]) -> None:
    import json

    click.echo(json.dumps(found, indent=2))


def _described(spec: ToolSpec, schema: ToolSchema) -> dict[str, Any]:
    """A tool as `--json` prints it. Times are in seconds."""
    import msgspec

    return {
        "name": spec.name,
        "description": spec.description,
        "signature": signature(spec, schema.input),
        "streaming": spec.streaming,
        "input": schema.input,
        "output": schema.output,
        "cancel": spec.cancel,
        "idempotent": spec.idempotent,
        "timeout": spec.timeout,
        "limit": spec.limit,
        "batch": spec.batch,
        "wait": spec.wait,
        "resources": msgspec.to_builtins(spec.resources),
    }


def signature(spec: ToolSpec, arguments: Mapping[str, Any]) -> str:
    """A tool as Python would write it. `arguments` is the JSON Schema of its arguments."""
    return f"{spec.name}({', '.join(text for text, _ in parameters(spec, arguments))})"


def parameters(spec: ToolSpec, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameters as Python would write them, each with its description."""
    found = [(_parameter(each), each.description) for each in spec.parameters]
    if arguments.get("additionalProperties", True) is not False:
        found.append(("**others", ""))
    return found


def _parameter(parameter: ParameterSpec) -> str:
    kind = re.sub(r"(?:\w+\.)+(\w+)", r"\1", parameter.type)  # without the names of modules
    text = parameter.name if kind in ("", "Any") else f"{parameter.name}: {kind}"
    if parameter.required:
        return text
    return f"{text} = {parameter.default}" if text != parameter.name else f"{text}={parameter.default}"


def features(spec: ToolSpec) -> list[str]:
    """What a caller should know of a tool beside its signature, in short."""
    amounts = ", ".join(f"{amount:g} {name}" for name, amount in sorted(spec.resources.items()))
    found = [
        ("stream", spec.streaming),
        (f"timeout {spec.timeout:g} s" if spec.timeout is not None else "", spec.timeout is not None),
        (f"limit {spec.limit}", spec.limit is not None),
        (f"batch {spec.batch}", spec.batch is not None),
        (f"needs {amounts}", bool(amounts)),
    ]
    return [text for text, is_there in found if is_there]


def _print_table(specs: Sequence[ToolSpec], schemas: Mapping[str, ToolSchema]) -> None:
    import sys

    from bridge_py.wire.readable import readable

    from .rendering import Padding, Table
    from .screen import make_console

    console = make_console(sys.stdout)
    if not specs:
        console.print("the adapter has no tools: mark its methods with @tool")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("tool", max_width=_WIDEST, overflow="fold")
    table.add_column("description")
    for spec in specs:
        known = "".join(f" [{text}]" for text in features(spec))
        table.add_row(readable(spec.name), readable(f"{spec.description}{known}".strip()))
        for text, description in parameters(spec, schemas[spec.name].input):
            table.add_row(Padding(readable(text), (0, 0, 0, 2)), readable(description))
    with console.capture() as printed:
        console.print(table)
    click.echo(printed.get(), nl=False)
