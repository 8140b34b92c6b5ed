"""`pool.python`: calls anything that Python can import, by its name, in a worker."""

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
from snakepit_trio._util.ownership import require_trio
from snakepit_trio.state.store import SessionStore

from . import short_names
from .dspy import DspyAPI, Models, split_settings
from .placements import Copy, ObjectPlacement, ObjectPlacements, Step, new_copy_id

if TYPE_CHECKING:
    from snakepit_trio._calls.dispatcher import Dispatcher
    from snakepit_trio.state.view import SessionView

Arguments = Mapping[str, Any]
StepLike = Step | tuple[Any, ...]
_NO_TEXTS: Final[Mapping[str, str]] = {}


class PythonAPI(DspyAPI):
    """Calls functions, classes and methods by their names, and keeps objects in workers. Reached as `pool.python`.

    It needs an adapter that derives from `bridge_py.adapters.python_calls.PythonCalls`. The adapter's options say what
    may be called. `"stored.name"`, anywhere in the arguments, stands for a stored object, and so does a `RemoteRef`.
    `Verbatim` is for a text that only looks like a reference.

    Objects are stored for a session, in one worker, until they are deleted, the session ends or the worker ends. All
    methods but `create_session` take `session`, a handle or an id, and `timeout`, as `Pool.execute` does. They raise
    what `Pool.execute` raises, and also: `InvalidCall` for an invalid call, or one that needs a session and has none;
    `NotAllowed` for a target that may not be called; `StoredObjectNotFound`; `StoredObjectLost` if the worker with the
    object is gone; `SessionNotFound`; `QuotaExceeded`. A cancelled call leaves the stored objects as they were before
    the call, or as they are after it.
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
        """Call what `target` names ("math.sqrt", "stored.model.fit"), or return its value if it cannot be called.

        A result that cannot be sent is stored for the session, and a `RemoteRef` to it is returned. With `store_as`
        this is done with any result. With `durable` the host keeps a copy of the result. If the worker is lost, the
        object is restored from the copy.
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
        """Store a value under a name, and return a reference to it.

        With `durable` the host keeps a copy of the value as it is now. If the worker is lost, the object is restored
        from the copy, without the changes that later calls have made to the object.
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
        """References to the session's stored objects, in the order in which they were first stored."""
        found: list[RemoteRef] = await self.run("python_list_stored", {}, session, timeout)
        return found

    async def delete_stored(
        self, name: str | RemoteRef, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT
    ) -> None:
        """Delete a stored object."""
        await self.run("python_delete_stored", {"name": _name_of(name)}, session, timeout)

    async def inspect(
        self, target: str, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT
    ) -> dict[str, Any]:
        """Describe `target`: "type", "callable", "signature", "doc", "members", and "shape" and "dtype" (or None)."""
        found: dict[str, Any] = await self.run("python_inspect", {"target": target}, session, timeout)
        return found

    async def info(self, *, session: SessionView | str | None = None, timeout: Timeout = DEFAULT) -> dict[str, Any]:
        """Describe a worker: versions of Python and of libraries, the allow-list, and the objects stored in it.

        With a session it is the session's worker, and "stored" and "stored_bytes" are those of the session.
        """
        found: dict[str, Any] = await self.run("python_info", {}, session, timeout)
        return found

    async def create_session(
        self, *, ttl: float | Default | None = DEFAULT, metadata: Mapping[str, str] = _NO_TEXTS
    ) -> str:
        """Make a session and return its id. It ends `ttl` seconds after its last use, or when it is deleted.

        By default `ttl` is the pool's `session_ttl`. None means that the session does not expire.
        `pool.sessions.delete_session` deletes it.
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
        """Make several calls, one after the other, in one round trip. Returns their results.

        A step is a `Step`, or a tuple: ("target", {...}) or ("target", {...}, {"args": [...], "store_as": "name"}).
        If all steps succeed, the objects that they store are kept. If a step fails, nothing has been stored, and the
        error names the step. Without a session, stored objects are for the later steps only.
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
        """Make a model of scikit-learn by a short name, such as "random_forest", and store it.

        Raises `UsageError` for an unknown name. The error lists the names.
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
        """Fit a stored model to `data`, {"X": ..., "y": ...}, and return its reference. Each may be "stored.name"."""
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
        """Predict with a stored model for `data`: an array, a frame, or {"X": ...}. With `proba`: probabilities."""
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
        """Read a frame with pandas. `source` is "csv", "json", "parquet", "excel" or "sql", `params` its parameters.

        All sources that read a file take it as "path" or "filepath". "sql" takes "sql" and "con". "con" is
        "sqlite:///file" (opened read-only); with a trusted adapter it may be anything that pandas takes.
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
        """Set options of a library in one worker: the session's worker, or without a session any worker.

        "dspy" takes the settings of `configure_dspy`, {"provider": ..., "model": ...}. They are for the session, or
        without a session for the pool. Raises `UsageError` for an unknown framework or setting. The error lists the
        known ones.
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
        """Call a tool whose worker side is a `DynamicCall`, and return the value of its reply.

        `stores` are the names under which the call may store objects. With `durable` the host keeps a copy of the
        object with the first name; `value` is copied at once if it has no references in it. If there is a session,
        `claimed` is called with the worker that takes the call.
        """
        require_trio()
        self._check_tool(tool)
        session_id = session_id_of(session, tool)
        if session_id is None:
            return (await self._runner.execute(tool, arguments, timeout, None))["value"]
        if self._store.may_wait:  # the arguments are sent as they are now, however long the store waits
            arguments, value = own((dict(arguments), value), f"{tool}: args")
        names = [check_name(name) for name in stores if name is not None]
        call = _StoringCall(tool, arguments, names, durable, value)
        budget = self._runner.budget(tool, arguments, timeout, None)
        deadline = math.inf if budget is None else trio.current_time() + budget
        while True:
            await self._store.get_session(session_id)
            objects = await self._placements.open(session_id)
            left = None if budget is None else max(0.0, deadline - trio.current_time())
            with suppress(Displaced):  # the session's worker ended before the call could start there
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
        """Stop listening to sessions, and forget all models. For a pool that has ended."""
        self._placements.close()
        self._models.close()

    def _check_tool(self, tool: str) -> None:
        if tool not in self._dispatcher.tools and self._dispatcher.tools:
            raise UsageError(
                f"the workers of this pool have no tool {tool!r}, which pool.python calls: open it with the adapter "
                "bridge_py.adapters.python_calls.PythonCalls, or one that derives from it"
            )


class _StoringCall:
    """One call that may store objects."""

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
        """The copies of the objects that the call has stored, by name, given its reply."""
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
