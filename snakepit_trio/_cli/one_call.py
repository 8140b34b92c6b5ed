"""One call of a tool, for `snakepit run` and `snakepit debug`: from its worker's start to its last line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import snakepit_trio as snakepit
from bridge_py.tools.adapter import unknown_tool
from snakepit_trio._calls.call import DEFAULT
from snakepit_trio._config.options import FurtherOptions
from snakepit_trio._processes.terminal import Terminal as DebuggersTerminal
from snakepit_trio._serving.json_values import to_json
from snakepit_trio._serving.schemas import tool_schemas

from .arguments import Given, make_arguments
from .rendering import pretty_repr
from .terminal import Terminal


@attrs.frozen(kw_only=True)
class Plan:
    """What to run. `timeout` is in seconds; None stands for the tool's own, or the pool's.

    With `debug`, there is no timeout, and a debugger opens at breakpoints and where the tool raises.
    """

    adapter: str
    tool: str
    given: Sequence[Given]
    timeout: float | None
    as_json: bool
    resources: Mapping[str, float]
    debug: bool = False


def check_terminal() -> None:
    """Raise `UsageError` if this process has no terminal for a debugger."""
    try:
        with DebuggersTerminal():
            pass
    except OSError as error:
        raise snakepit.UsageError(
            f"a debugger needs a terminal, and this process has none ({error.strerror}): use `snakepit run`"
        ) from None


async def run(plan: Plan) -> None:
    """Run the tool, and print what it gives. When this ends, in whatever way, the worker has ended.

    Raises what `open_pool` and `Pool.execute` raise, `ReaderLeft` if nobody reads stdout, and `OSError` if it cannot be
    written.
    """
    terminal = Terminal()
    with terminal.hears_workers():
        async with snakepit.open_pool(plan.adapter, **_options_of(plan)) as pool:
            schemas = await tool_schemas(pool)
            if plan.tool not in schemas:
                raise unknown_tool(plan.tool, schemas)
            arguments = make_arguments(schemas[plan.tool], plan.given)
            options: dict[str, Any] = {
                "timeout": None if plan.debug else DEFAULT if plan.timeout is None else plan.timeout,
                "on_progress": terminal.show if terminal.shows_progress and not plan.debug else None,
            }
            try:
                if schemas[plan.tool].streaming:
                    await _print_chunks(pool.stream(plan.tool, arguments, **options), plan, terminal)
                else:
                    await terminal.write(_text_of(await pool.execute(plan.tool, arguments, **options), plan))
            except snakepit.ResourcesNotOffered as error:
                needs = " ".join(f"--resource {each}" for each in _needs(pool, plan.tool))
                raise snakepit.UsageError(f"{str(error).partition('. ')[0]}: give {needs}") from None


def _options_of(plan: Plan) -> FurtherOptions:
    if plan.debug:
        return {"workers": 1, "name": "debug", "resources": plan.resources, "debug": "post-mortem"}
    return {"workers": 1, "name": "run", "resources": plan.resources}


def _needs(pool: snakepit.Pool, tool: str) -> list[str]:
    found = pool.tools.get_tool(None, tool).spec.resources
    return [f"{name}={amount:g}" for name, amount in sorted(found.items())]


async def _print_chunks(stream: Any, plan: Plan, terminal: Terminal) -> None:
    async with stream as chunks:
        async for chunk in chunks:
            await terminal.write(_line_of(chunk, plan))


def _text_of(value: Any, plan: Plan) -> str:
    if plan.as_json:
        return to_json(value).decode()
    return value if isinstance(value, str) else pretty_repr(value)


def _line_of(chunk: Any, plan: Plan) -> str:
    if plan.as_json:
        return to_json(chunk, what="a chunk").decode()
    # The texts of some objects have several lines, such as those of arrays.
    return chunk if isinstance(chunk, str) else " ".join(repr(chunk).split())
