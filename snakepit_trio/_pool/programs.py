"""Commands for the programs of a session: make, run, list and delete them. The session keeps an entry for each.

The commands "create_program" and "execute_program" use the worker's tools of these names, if it has them; else DSPy.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bridge_py.wire.errors import InvalidArguments, ProgramNotFound, UsageError
from snakepit_trio._calls.call import DEFAULT, Arguments, CallWorker, Timeout, needed_session_id
from snakepit_trio.state.view import SessionView
from snakepit_trio.telemetry.spans import told

if TYPE_CHECKING:
    from snakepit_trio._pool.pool import Pool

__all__ = ["execute_program_command"]


async def execute_program_command(
    pool: Pool,
    session: SessionView | str,
    command: str,
    args: Arguments | None = None,
    *,
    timeout: Timeout = DEFAULT,
) -> Any:
    """Run a command on the programs of a session.

    - "create_program": {"signature": ..., "kind": "predict", "program_id": ...}, and further parameters of its kind.
      "kind" and "program_id" are optional. Returns the entry of the program, a dict, with "program_id".
    - "execute_program": {"program_id": ..., "inputs": {...}}. Without "inputs", all other arguments are the inputs.
      Returns the outputs.
    - "get_program", "delete_program": {"program_id": ...}. "list_programs": {}. These three ask no worker.

    If the workers have tools of these names: "create_program" passes the arguments to the tool, and keeps the arguments
    and the dict that the tool returns as the entry of the program. "program_id", from the dict or else from the
    arguments, names the program. "execute_program" passes the arguments to the tool, and the entry as `program`, so
    that any worker can build the program again. If the tool returns a dict with "program", that is kept too. Both
    return the result of the tool.

    Raises `UsageError`, which lists the commands, for an unknown command. Raises `InvalidArguments`, `ProgramNotFound`,
    `SessionNotFound`, and the errors of `Pool.execute` and `pool.python`.
    """
    if command not in _COMMANDS:
        raise UsageError(f"there is no command {command!r:.100} for programs; there are: {', '.join(_COMMANDS)}")
    session_id = needed_session_id(session, command)
    await pool.sessions.get_session(session_id)
    request = _Request(pool, pool.sessions.of(session_id), command, dict(args or {}), timeout)
    program = request.args.get("program_id")
    about = {"command": command, "program": program if isinstance(program, str) else "", "session": session_id}
    with told(pool.events, "program", about):
        return await _COMMANDS[command](request)


class _Request:
    def __init__(self, pool: Pool, view: SessionView, command: str, args: dict[str, Any], timeout: Timeout) -> None:
        self.pool = pool
        self.view = view
        self.command = command
        self.args = args
        self.timeout = timeout
        self.has_tool = command in pool._dispatcher.tools
        self.worker_id = ""

    def program_id(self) -> str:
        found = self.args.get("program_id")
        if not isinstance(found, str) or not found:
            raise InvalidArguments(f"{self.command}: say which program, as text: program_id=...", "program_id")
        return found

    async def call(self, args: Arguments) -> Any:
        """Run the worker's tool, and note which worker it was."""
        return await self.pool._runner.execute(self.command, args, self.timeout, self.view.id, claim=self._note)

    def _note(self, worker: CallWorker) -> bool:
        self.worker_id = worker.id
        return True


async def _create(request: _Request) -> Any:
    if request.has_tool:
        return await _create_by_tool(request)
    params = dict(request.args)
    program_id = params.pop("program_id", None) or f"program_{secrets.token_hex(4)}"
    kind = params.pop("kind", "predict")
    entry = await request.pool.python.create_dspy_program(
        kind, params, store_as=program_id, session=request.view, timeout=request.timeout
    )
    return {"program_id": program_id, **entry}


async def _create_by_tool(request: _Request) -> Any:
    result = await request.call(request.args)
    told = result if isinstance(result, Mapping) else {}
    program_id = told.get("program_id") or request.args.get("program_id")
    if not isinstance(program_id, str) or not program_id:
        raise UsageError("create_program: give a program_id, or have the tool return {'program_id': ...}, a text")
    known = {"id": program_id, "program_id": program_id, "created_at": time.time(), "worker": request.worker_id}
    entry = {"kind": "", "signature": "", **request.args, **told, **known}
    await request.view.store_program(program_id, entry)
    return result


async def _execute(request: _Request) -> Any:
    program_id = request.program_id()
    if request.has_tool:
        known = await request.view.get_program(program_id)
        result = await request.call({**request.args, "program": known})
        if isinstance(result, Mapping) and isinstance(changed := result.get("program"), Mapping):
            await request.view.update_program(program_id, changed)
        return result
    rest = {name: value for name, value in request.args.items() if name != "program_id"}
    inputs = rest["inputs"] if rest.keys() == {"inputs"} else rest
    return await request.pool.python.execute_dspy(program_id, inputs, session=request.view, timeout=request.timeout)


async def _get(request: _Request) -> Any:
    return await request.view.get_program(request.program_id())


async def _list(request: _Request) -> list[Any]:
    found = []
    for program_id in await request.view.list_programs():
        try:
            found.append(await request.view.get_program(program_id))
        except ProgramNotFound:  # deleted meanwhile
            continue
    return found


async def _delete(request: _Request) -> None:
    await request.view.delete_program(request.program_id())


_COMMANDS: Final[Mapping[str, Callable[[_Request], Awaitable[Any]]]] = {
    "create_program": _create,
    "execute_program": _execute,
    "get_program": _get,
    "list_programs": _list,
    "delete_program": _delete,
}
