"""`pool.python`: whatever Python can import, called by its name in a worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from bridge_py.dynamic.references import RemoteRef, check_name, references_in
from bridge_py.wire.errors import UsageError
from bridge_py.wire.owning import own
from snakepit_trio._calls.call import DEFAULT, CallWorker, Default, Displaced, Timeout, session_id_of
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio.state.store import SessionStore

from . import short_names
from .dspy import DspyAPI, Models, split_settings
from .placements import Copy, ObjectPlacement, ObjectPlacements, Step, new_copy_id

if TYPE_CHECKING:
    from snakepit_trio._calls.dispatcher import Dispatcher
    from snakepit_trio.state.view import SessionView

Arguments = Mapping[str, Any]
StepLike = Step | tuple[Any, ...]
_NOTHING: Final[Mapping[str, Any]] = {}
_NO_TEXTS: Final[Mapping[str, str]] = {}


class PythonAPI(DspyAPI):
    """Calls functions, classes and methods by their names, and keeps objects in workers. Reached as `pool.python`.

    It takes an adapter that derives from `bridge_py.adapters.python_calls.PythonCalls`, whose options say what may be
    called. `"stored.name"`, anywhere in the arguments, stands for an object that is kept, and so does a `RemoteRef`;
    `Verbatim` is for text that only looks so.

    Objects are kept for a session, in one worker, until they are deleted, the session ends or the worker does. All
    methods take `session`, a handle or an id, and `timeout` as `Pool.execute` does, and raise what that raises, and
    beside it: `InvalidCall` for what takes a session if there is none, or cannot be; `NotAllowed` for what may not be
    called; `StoredObjectNotFound`, and `StoredObjectLost` if the worker is gone; `SessionNotFound`; `QuotaExceeded`.
    A call that is cancelled leaves what is stored as it was before, or as it is after.
    """

    def __init__(self, caller: CallRunner, store: SessionStore, dispatcher: Dispatcher, default_ttl: float) -> None:
        self._runner = caller
        self._store = store
        self._dispatcher = dispatcher
        self._default_ttl = default_ttl
        self._placements = ObjectPlacements(store.hub, dispatcher)
        self._models = Models(store.hub)

    async def call(
        self,
        target: str,
        kwargs: Arguments | None = None,
        *,
        args: Sequence[Any] = (),
        store_as: str | None = None,
        durable: bool = False,
        session: SessionView | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Any:
        """Call what `target` names ("math.sqrt", "stored.model.fit"), or give its value if it cannot be called.

        A result that cannot be sent is kept for the session, and a `RemoteRef` to it is returned; so is, with
        `store_as`, any result. `durable` has the host keep a copy of it, of which it is restored if its worker is lost.
        """
        if durable and store_as is None:
            raise UsageError("durable=True is for a result that is kept: give it a name by store_as=")
        if not isinstance(kwargs or {}, Mapping) or isinstance(args, str) or not isinstance(args, Sequence):
            raise UsageError(
                f"{target!r}: give a dict of keyword arguments, and positional ones as a list by args=[...]"
            )
        arguments = {"target": target, "args": list(args), "kwargs": dict(kwargs or {}), "store_as": store_as}
        return await self.run("python_call", arguments, session, timeout, store_as, durable=durable)

    async def store(
        self,
        name: str,
        value: Any,
        *,
        durable: bool = False,
        session: SessionView | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> RemoteRef:
        """Keep a value under a name.

        With `durable` the host keeps a copy of the value as it is now, of which it is restored if its worker is lost;
        what later calls do to the object is not in it.
        """
        check_name(name)
        arguments = {"name": name, "value": value}
        ref: RemoteRef = await self.run("python_store", arguments, session, timeout, name, durable=durable, value=value)
        return ref

    async def retrieve(
        self, name: str | RemoteRef, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT
    ) -> Any:
        """The value of a stored object. Raises `EncodeError` if it cannot be sent."""
        return await self.run("python_retrieve", {"name": _name_of(name)}, session, timeout)

    async def list_stored(
        self, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT
    ) -> list[RemoteRef]:
        """The session's stored objects, in the order of their first storing."""
        found: list[RemoteRef] = await self.run("python_list_stored", {}, session, timeout)
        return found

    async def delete_stored(
        self, name: str | RemoteRef, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT
    ) -> None:
        """Let go of a stored object."""
        await self.run("python_delete_stored", {"name": _name_of(name)}, session, timeout)

    async def inspect(
        self, target: str, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT
    ) -> dict[str, Any]:
        """What `target` is: "type", "callable", "signature", "doc", "members", and "shape" and "dtype" or None."""
        found: dict[str, Any] = await self.run("python_inspect", {"target": target}, session, timeout)
        return found

    async def info(self, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT) -> dict[str, Any]:
        """What a worker is: versions of Python and of libraries, the allow-list, and what is stored in it.

        With a session it is that of the session, and "stored" and "stored_bytes" are the session's.
        """
        found: dict[str, Any] = await self.run("python_info", {}, session, timeout)
        return found

    async def create_session(
        self, *, ttl: float | Default | None = DEFAULT, metadata: Mapping[str, str] = _NO_TEXTS
    ) -> str:
        """Make a session and return its id. It ends `ttl` seconds after its last use, or when it is deleted.

        `ttl` is `session_ttl` by default; None is for ever. `pool.sessions.delete_session` deletes it.
        """
        seconds = self._default_ttl if isinstance(ttl, Default) else ttl
        return await self._store.create_session(ttl=seconds, metadata=metadata)

    async def pipeline(
        self,
        steps: Iterable[StepLike],
        *,
        session: SessionView | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> list[Any]:
        """Make several calls, one after the other, in one round trip; returns their results.

        A step is a `Step`, or a tuple: ("target", {...}) or ("target", {...}, {"args": [...], "store_as": "name"}).
        What the steps store lasts if all of them succeed; if one fails nothing has been stored, and the error names it.
        Without a session, what they store is for the later steps alone.
        """
        made = [_step_of(step) for step in steps]
        plain = [
            {"target": step.target, "args": list(step.args), "kwargs": dict(step.kwargs), "store_as": step.store_as}
            for step in made
        ]
        stores = [step.store_as for step in made if step.store_as is not None]
        found: list[Any] = await self.run("python_pipeline", {"steps": plain}, session, timeout, *stores)
        return found

    async def create_model(
        self,
        kind: str,
        params: Arguments | None = None,
        *,
        store_as: str,
        session: SessionView | str,
        timeout: Timeout = DEFAULT,
    ) -> RemoteRef:
        """Make a model of scikit-learn by a short name, such as "random_forest", and keep it.

        Raises `UsageError`, which lists the names, if there is none of that.
        """
        target = short_names.model(kind)
        ref: RemoteRef = await self.call(target, params, store_as=store_as, session=session, timeout=timeout)
        return ref

    async def train_model(
        self,
        name: str | RemoteRef,
        data: Arguments,
        *,
        session: SessionView | str,
        timeout: Timeout = DEFAULT,
    ) -> RemoteRef:
        """Fit a stored model to `data`: {"X": ..., "y": ...}; each may be "stored.name". Returns its reference."""
        target = f"stored.{_name_of(name)}.fit"
        ref: RemoteRef = await self.call(target, short_names.training(data), session=session, timeout=timeout)
        return ref

    async def predict(
        self,
        name: str | RemoteRef,
        data: Any,
        *,
        store_as: str | None = None,
        proba: bool = False,
        session: SessionView | str,
        timeout: Timeout = DEFAULT,
    ) -> Any:
        """The predictions of a stored model for `data`, an array or frame, or {"X": ...}. `proba`: probabilities."""
        target = f"stored.{_name_of(name)}.{'predict_proba' if proba else 'predict'}"
        x = data["X"] if isinstance(data, Mapping) and set(data) == {"X"} else data
        return await self.call(target, args=[x], store_as=store_as, session=session, timeout=timeout)

    async def load_dataframe(
        self,
        source: str,
        params: Arguments,
        *,
        store_as: str | None = None,
        session: SessionView | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Any:
        """Read a frame with pandas: `source` is "csv", "json", "parquet", "excel" or "sql", `params` its parameters.

        The file may be given as "path" or "filepath" for all of them. "sql" takes "sql" and "con", which is
        "sqlite:///file" (opened read-only), or for trusted adapters whatever pandas takes.
        """
        tool, arguments = short_names.frame(source, params)
        if tool != "python_call":
            return await self.run(tool, {**arguments, "store_as": store_as}, session, timeout, store_as)
        return await self.call(**arguments, store_as=store_as, session=session, timeout=timeout)

    async def configure(
        self,
        framework: str,
        settings: Arguments,
        *,
        session: SessionView | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Any:
        """Set options of a library in one worker: that of the session, or any.

        Raises `UsageError`, which lists what there is, for a framework or a setting that is not known. "dspy" takes
        what `configure_dspy` does, {"provider": ..., "model": ...}, and is for its session, or the pool.
        """
        if framework == "dspy":
            provider, config = split_settings(settings)
            return await self.configure_dspy(provider, config, session=session, timeout=timeout)
        arguments = {"framework": framework, "settings": dict(settings)}
        return await self.run("python_configure", arguments, session, timeout)

    # For modules that add methods of their own.

    async def run(
        self,
        tool: str,
        arguments: Arguments,
        session: SessionView | str | None,
        timeout: Timeout,
        *stores: str | None,
        durable: bool = False,
        value: Any = None,
        claimed: Callable[[CallWorker], object] | None = None,
    ) -> Any:
        """Call a tool whose worker's side is a `DynamicCall`, and return the value of its reply.

        `stores` are names under which it may store objects; `durable`: the first is to have a copy, which is `value`
        if that has no references in it. `claimed` is told of the worker, if there is a session.
        """
        self._check_tool(tool)
        session_id = session_id_of(session, tool)
        if session_id is None:
            return (await self._runner.execute(tool, arguments, timeout, None))["value"]
        if self._store.may_wait:  # what is sent is what it was when the call was made
            arguments, value = own((dict(arguments), value), f"{tool}: args")
        names = [check_name(name) for name in stores if name is not None]
        call = _StoringCall(tool, arguments, names, durable, value)
        budget = self._runner.budget(tool, arguments, timeout, None)
        deadline = math.inf if budget is None else trio.current_time() + budget
        while True:
            await self._store.get_session(session_id)
            objects = await self._placements.open(session_id)
            left = None if budget is None else max(0.0, deadline - trio.current_time())
            with suppress(Displaced):  # its worker has ended before it could start there
                return await self._run_in(objects, call, left, claimed)

    async def _run_in(
        self,
        objects: ObjectPlacement,
        call: _StoringCall,
        timeout: float | None,
        claimed: Callable[[CallWorker], object] | None,
    ) -> Any:
        placement = objects.placement()

        def claim(worker: CallWorker) -> bool:
            is_ours = objects.claim(worker, placement.number)
            if is_ours and claimed is not None:
                claimed(worker)
            return is_ours

        with self._placements.call(objects, call.names):
            sent = {**call.arguments, "placement": msgspec.structs.asdict(placement)}
            reply = await self._runner.execute(call.tool, sent, timeout, objects.session_id, claim=claim)
            objects.hear(placement, reply, call.copies(reply))
        return reply["value"]

    def close(self) -> None:
        """The pool has ended."""
        self._placements.close()
        self._models.close()

    def _check_tool(self, tool: str) -> None:
        if tool not in self._dispatcher.tools and self._dispatcher.tools:
            raise UsageError(
                f"the workers of this pool have no tool {tool!r}, which pool.python calls: open it with the adapter "
                "bridge_py.adapters.python_calls.PythonCalls, or one that derives from it"
            )


class _StoringCall:
    """One call that may store objects, until it is over."""

    def __init__(self, tool: str, arguments: Arguments, names: list[str], durable: bool, value: Any) -> None:
        self.tool = tool
        self.names = names
        self.arguments = dict(arguments)
        self._copies: dict[str, Copy] = {}
        self._copy_id = new_copy_id() if durable else 0
        if durable:
            self.arguments["copy_id"] = self._copy_id
        if durable and tool == "python_store" and next(references_in(value), None) is None:
            self._copies = {names[0]: Copy(value, names[0], self._copy_id)}
            self.arguments["has_copy"] = True

    def copies(self, reply: Arguments) -> dict[str, Copy]:
        """The copies of what it has stored."""
        made = {name: Copy(value, name, self._copy_id) for name, value in reply.get("copies", {}).items()}
        return self._copies | made


def _name_of(name: str | RemoteRef) -> str:
    return check_name(name.name if isinstance(name, RemoteRef) else name)


def _step_of(step: Any) -> Step:
    if isinstance(step, Step):
        return step
    if not isinstance(step, tuple) or not 1 <= len(step) <= 3:
        raise UsageError(f"{step!r:.200} is no step: give a Step, or ('target', {{...}}, {{'store_as': 'name'}})")
    options = dict(step[2]) if len(step) == 3 else {}
    if unknown := options.keys() - {"args", "store_as"}:
        raise UsageError(f"step {step[0]!r}: there is no option {min(unknown)!r}; there are: args, store_as")
    return Step(step[0], dict(step[1] or {}) if len(step) > 1 else {}, **options)
