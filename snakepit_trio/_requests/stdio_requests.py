"""The requests of a worker that speaks frames on its stdin and stdout (docs/stdio.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import trio

from bridge_py.wire import codec
from bridge_py.wire.errors import (
    CANCELLED,
    HostToolError,
    InvalidArguments,
    RemoteProtocolError,
    SessionError,
    SnakepitError,
    UnknownTool,
    VariableExists,
    VariableNotFound,
    type_name,
)
from snakepit_trio._calls.call import Call
from snakepit_trio._util.log import get_logger
from snakepit_trio.state.view import SessionView

from .contract_requests import ContractRequests
from .services import HostServices

INSIDE: Final = 1 << 62  # buffers of any size stay in the message
_MOST_ASKS: Final = 1000

logger = get_logger("snakepit.link")


class _Ask(NamedTuple):
    """One ask, while the host works on it."""

    number: int
    call: Call
    verb: Any
    args: Any
    scope: trio.CancelScope


class StdioRequests:
    """The asks of a worker while it serves calls. `reply` takes the number of an ask, and its answer."""

    def __init__(
        self,
        services: HostServices,
        worker_id: str,
        calls: Mapping[int, Call],
        requests: ContractRequests,
        reply: Callable[[int, dict[str, Any]], None],
    ) -> None:
        self.unanswered: set[int] = set()  # the numbers of asks, until their answers are written
        self._calls = calls
        self._worker_id = worker_id
        self._services = services
        self._requests = requests
        self._reply = reply
        self._running: dict[int, _Ask] = {}
        self._waiting: dict[int, Callable[[], None]] = {}  # by call id: called when none of its asks is left

    def take(self, frame: dict[str, Any], nursery: trio.Nursery) -> None:
        """Begin to answer an ask that has come. Raises `RemoteProtocolError`."""
        number = number_in(frame, "ask")
        if number in self.unanswered:
            raise RemoteProtocolError(f"ask {number} has no answer yet, and comes again")
        if len(self.unanswered) >= _MOST_ASKS:
            raise RemoteProtocolError(f"more than {_MOST_ASKS} asks without an answer that it has read")
        self.unanswered.add(number)
        call = self._calls.get(number_in(frame, "id"))
        if call is None:
            self._reply(number, error_answer(SessionError("the call that it is asked for is over")))
            return
        ask = self._running[number] = _Ask(
            number, call, frame.get("command"), frame.get("args", {}), trio.CancelScope()
        )
        nursery.start_soon(self._serve, ask)

    def cancel_for(self, call: Call) -> None:
        """Cancel the host tools that run for a call that is being stopped."""
        self._requests.host_tool_runs.cancel_for(call)

    @property
    def serving(self) -> set[int]:
        """The ids of the calls that the host still does work for."""
        return {ask.call.id for ask in self._running.values()} | self._requests.host_tool_runs.serving.keys()

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Stop the host tools of a call, and call `then` when the host does nothing more for the call.

        A variable that is being set is still set.
        """
        asks = self._asks_of(call)
        if not asks:
            self._requests.host_tool_runs.when_over(call, then)
            return
        self._waiting[call.id] = then
        for ask in asks:
            if ask.verb == "call_host_tool":
                ask.scope.cancel()

    def _asks_of(self, call: Call) -> list[_Ask]:
        return [ask for ask in self._running.values() if ask.call is call]

    async def _serve(self, ask: _Ask) -> None:
        answer = {"error": {"type": CANCELLED, "message": "the call is over"}}
        try:
            with ask.scope:
                answer = await self._answer_to(ask)
            self._reply(ask.number, answer)
        finally:
            self._forget(ask)

    def _forget(self, ask: _Ask) -> None:
        del self._running[ask.number]
        if not self._asks_of(ask.call) and (then := self._waiting.pop(ask.call.id, None)) is not None:
            self._requests.host_tool_runs.when_over(ask.call, then)

    async def _answer_to(self, ask: _Ask) -> dict[str, Any]:
        try:
            # The codec refuses values that cannot be sent, and gives others their form on arrival: a list for a tuple.
            packed = codec.encode(await self._find(ask), "result", beside=INSIDE)
            return {"result": codec.decode(packed.body, plain=True)}
        except Exception as error:
            if not isinstance(error, SnakepitError):
                logger.exception("worker %s asked for %r, which failed", self._worker_id, ask.verb)
            if ask.call.abandoned and ask.verb == "call_host_tool":
                return {"error": {"type": CANCELLED, "message": "the call is being stopped"}}
            return error_answer(error)

    async def _find(self, ask: _Ask) -> Any:
        match ask.verb:
            case "get_variable":
                return (await self._view(ask).get_variable(_name(ask))).value
            case "set_variable":
                return await _set_variable(self._view(ask), ask)
            case "call_host_tool":
                return await self._requests.call_host_tool(ask.call, _name(ask), ask.args.get("args") or {})
            case "list_host_tools":
                tools = self._services.tools.list_exposed_tools(ask.call.session_id or None)
                return [{"name": tool.name, "description": tool.spec.description} for tool in tools]
            case _:
                verbs = "get_variable, set_variable, call_host_tool, list_host_tools"
                raise UnknownTool(f"a worker cannot ask for {ask.verb!r}; it can for: {verbs}")

    def _view(self, ask: _Ask) -> SessionView:
        if not ask.call.session_id:
            raise SessionError(f"{ask.verb}: the call has no session")
        return self._requests.view_of(ask.call, _never)  # the call is not over before its asks


def _never() -> bool:
    return False


async def _set_variable(view: SessionView, ask: _Ask) -> int:
    name = _name(ask)
    if "value" not in ask.args:
        raise InvalidArguments("set_variable takes a value", "value")
    value = ask.args["value"]
    while True:
        # Between the two steps others may register the variable, or delete it.
        with contextlib.suppress(VariableNotFound):
            return (await view.update_variable(name, value, source="worker", owner=ask.call.name)).version
        with contextlib.suppress(VariableExists):
            return (await view.register_variable(name, None, value, source="worker")).version


def _name(ask: _Ask) -> str:
    if not isinstance(ask.args, Mapping) or not isinstance(ask.args.get("name"), str):
        raise InvalidArguments(f"{ask.verb} takes a map of arguments, with a name", "name")
    name: str = ask.args["name"]
    return name


def number_in(frame: dict[str, Any], key: str) -> int:
    """The number of a call, or of an ask, in a frame. Raises `RemoteProtocolError` if it is no number."""
    number = frame.get(key)
    if type(number) is not int:
        raise RemoteProtocolError(f"a frame whose {key!r} is {number!r:.100}, not a number")
    return number


def error_answer(error: Exception) -> dict[str, Any]:
    """The answer to an ask that failed."""
    if isinstance(error, HostToolError):
        return {"error": {"type": error.type, "message": text_of(error.message)}}
    return {"error": {"type": type_name(error), "message": text_of(error)}}


def text_of(value: Any) -> str:
    """The text of a value, without lone surrogates, so that it can be sent; empty for None."""
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode()
