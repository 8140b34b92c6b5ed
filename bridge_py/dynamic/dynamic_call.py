"""One dynamic call in a worker: names become objects, and results are kept or sent."""

from __future__ import annotations

import builtins
import copy as copying
import importlib
import itertools
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge_py.wire import codec
from bridge_py.wire.errors import EncodeError, InvalidCall, StoredObjectLost, StoredObjectNotFound

from . import allowed_names
from .allow_list import AllowAll, parts_of
from .fields import MISSING
from .references import PREFIX, Pickled, RemoteRef, check_name, replace
from .sizing import repr_of, size_of, type_of
from .stored_objects import Entry, ObjectStore, Placement, SessionObjects

NO_SESSION: Final = "give session=, for example that of `async with pool.session() as session`"


class DynamicCall:
    """The objects that one call may name, and the objects that it adds.

    The call itself sees an added object at once. Other calls see all of them together, after `reply` has made them
    last. A pipeline may add objects for its own later steps even without a session.
    """

    def __init__(
        self,
        allow_list: AllowAll,
        store: ObjectStore,
        session_id: str | None,
        placement: Placement | None,
        *,
        is_pipeline: bool = False,
    ) -> None:
        self._allow_list = allow_list
        self._store = store
        self._session_id = session_id
        self._is_pipeline = is_pipeline
        self._objects: SessionObjects | None = None
        self._lost: Mapping[str, str] = {}
        self._added: dict[str, Entry] = {}
        self._removed = ""
        self._copies: dict[str, Any] = {}
        if session_id is not None and placement is not None:
            self._lost = placement.lost
            self._objects = self._open(session_id, placement)

    @property
    def known_objects(self) -> SessionObjects | None:
        """The objects of its session; None without a session."""
        return self._objects

    @property
    def objects(self) -> SessionObjects:
        """The objects of its session. Raises `InvalidCall` without a session."""
        if self._objects is None:
            raise InvalidCall(f"objects are stored for a session, and this call has none: {NO_SESSION}")
        return self._objects

    # From names to objects.

    def run(self, target: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Call the object that a target names, or return it if it is not callable.

        References in arguments are replaced by the stored objects.
        """
        found = self.resolve(target)
        args = [self.argument(value) for value in args]
        kwargs = {name: self.argument(value) for name, value in (kwargs or {}).items()}
        if not callable(found):
            if args or kwargs:
                raise InvalidCall(f"{target!r} is a {type_of(found)}, which cannot be called; leave the arguments out")
            return found
        name = next((step for step in reversed(target.split(".")) if step != "__call__"), "")
        given, named = self._allow_list.prepared(found, name, args, kwargs, target)
        return found(*given, **named)

    def resolve(self, target: str) -> Any:
        """Find the object that a target names. Raises `NotAllowed`, `InvalidCall` and the errors of `find`."""
        parts = parts_of(target)
        if parts[0] == "stored":
            if len(parts) == 1:
                raise InvalidCall("'stored' alone names nothing: give the object's name too, as in 'stored.x'")
            found, rest = self.find(parts[1]).value, parts[2:]
        else:
            found, rest = self._begin(parts, target)
        steps = list(rest)
        while steps and steps[-1] == "__call__":
            steps.pop()  # the rules for the function itself hold however it is called
        for name in steps:
            found = self._step(found, name, target)
        if parts[0] == "stored" and not steps and (callable(found) or rest):
            self._check_called(found, target)
        return found

    def argument(self, value: Any) -> Any:
        """Replace references in a value by the objects that they name."""
        return replace(value, self._refer)

    def find(self, name: str) -> Entry:
        """Find an object, stored or added by this call. Raises `StoredObjectLost` and `StoredObjectNotFound`."""
        entry = self._added.get(name) or self.objects.entries.get(name)
        if entry is not None:
            return entry
        if name not in self.objects.names and (why := self._lost.get(name)) is not None:
            raise StoredObjectLost(why)
        there = ", ".join(dict.fromkeys([*self.objects.entries, *self._added])) or "none"
        raise StoredObjectNotFound(f"session {self._session_id!r} has no stored object {name!r}; there are: {there}")

    def _refer(self, reference: str | RemoteRef) -> Any:
        if isinstance(reference, str):
            found, shown = self.resolve(reference), reference
        elif reference.session_id != (self._session_id or ""):
            raise InvalidCall(
                f"the argument {PREFIX}{reference.name} belongs to session {reference.session_id!r}, and this call to "
                f"{self._session_id or 'none'!r}: {NO_SESSION}"
            )
        else:
            found, shown = self.find(reference.name).value, PREFIX + reference.name
        self._allow_list.check_value(found, f"the argument {shown!r}", shown)
        return found

    def _begin(self, parts: list[str], target: str) -> tuple[Any, list[str]]:
        """Find the builtin or the module that a target begins with; returns it, and the steps from there."""
        if hasattr(builtins, parts[0]):
            parts = ["builtins", *parts]
        if parts[0] == "builtins" and len(parts) > 1:
            self._allow_list.check_builtin(parts[1], target)
            return _attribute(builtins, parts[1], target), parts[2:]
        for count in range(1, len(parts) + 1):
            if self._allow_list.may_walk(module := ".".join(parts[:count])):
                return _import(module, target), parts[count:]
        raise self._allow_list.refusal(target, f"the module {parts[0]!r} is not on the allow-list", parts[0])

    def _step(self, owner: Any, name: str, target: str) -> Any:
        allow_list = self._allow_list
        if (found := allow_list.field(owner, name, target)) is not MISSING:
            return found
        allow_list.check_step(owner, name, target)
        if not isinstance(owner, type(builtins)):
            return _attribute(owner, name, target)
        module = owner.__name__
        may_import = name not in vars(owner) and allow_list.may_walk(f"{module}.{name}")
        found = _submodule(owner, f"{module}.{name}", name, target) if may_import else _attribute(owner, name, target)
        if not allow_list.is_curated(module, name) or isinstance(found, type(builtins)):
            allow_list.check_object(found, name, target)
        return found

    def _check_called(self, found: Any, target: str) -> None:
        if not callable(found):
            raise InvalidCall(f"{target!r}: a {type_of(found)} cannot be called")
        self._allow_list.check_called(found, target)

    # From results to answers.

    def check_can_keep(self, name: str) -> None:
        """Raise `InvalidCall` now if an object of that name could not be kept later."""
        check_name(name)
        if not self._is_pipeline:
            _ = self.objects

    def answer(self, result: Any, store_as: str | None = None, *, copy_id: int = 0, target: str = "") -> Any:
        """Make the caller's answer for a result: the result, or a reference to it.

        If the result can be sent and `store_as` is None, it is the answer itself. Otherwise the result is kept, and the
        answer is a reference to it.
        """
        if store_as is None and _can_be_sent(result):
            self._allow_list.check_value(result, "its result", target)
            return result
        if store_as is None and (known := self._known(result)) is not None:
            return known
        if store_as is None and self._objects is None and not self._is_pipeline:
            raise InvalidCall(f"{target!r} gives a {type_of(result)}, which cannot be sent, only stored: {NO_SESSION}")
        return self.keep(store_as or self._new_name(result), result, copy_id=copy_id, target=target)

    def keep(self, name: str, value: Any, *, copy_id: int = 0, has_copy: bool = False, target: str = "") -> RemoteRef:
        """Add an object. With a `copy_id` it is durable, and the host gets a copy unless it `has_copy`.

        Raises `InvalidCall` or `NotAllowed` if it cannot be kept, and `EncodeError` if it cannot be kept durably.
        """
        self.check_can_keep(name)
        self._allow_list.check_value(value, "its result", target or name)
        ref = RemoteRef(name, type_of(value), repr_of(value), size_of(value), self._session_id or "")
        if copy_id and not has_copy:
            self._copies[name] = self.copy(value, name)
        self._added[name] = Entry(value, ref, copy_id)
        return ref

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.find(name)
        self._removed = name

    def copy(self, value: Any, name: str) -> Any:
        """Make the copy of a durable object that the host keeps. Raises `EncodeError` if no copy is possible."""
        if self._allow_list.trusted and not _is_plain(value):
            try:
                return Pickled(pickle.dumps(value, protocol=5))
            except Exception as error:
                raise EncodeError(f"{name!r} cannot be stored durably: its pickle failed: {error}") from None
        if not _comes_back(value):
            raise EncodeError(
                f"{name!r} cannot be stored durably: a {type_of(value)} does not come back as itself from a copy. Store"
                " it without durable=True, store what it is made from, or open the pool with options={'trusted': True},"
                " which copies by pickle"
            )
        return value

    def restored(self, copy: Any) -> Any:
        """Make an object from its copy. Raises `InvalidCall` for a pickle if the adapter is not trusted."""
        if not isinstance(copy, Pickled):
            return copying.deepcopy(copy)  # the copy may be read-only, and in memory that the host wants back
        if not self._allow_list.trusted:
            raise InvalidCall("a pickle is not read: this adapter is not trusted")
        return pickle.loads(copy.data)  # noqa: S301 - written by a worker of this pool, kept by its host

    def reply(self, value: Any) -> dict[str, Any]:
        """Carry out all changes, and make the reply that tells the host. Raises the errors of `ObjectStore.change`."""
        if self._objects is None:
            return {"value": value}
        objects = self._objects
        if self._added or self._removed:
            self._store.change(objects, self._added, self._removed)
        copies = {"copies": self._copies} if self._copies else {}
        # The version is read first, so a change in between is told again.
        version, entries = objects.version, objects.entries
        copy_ids = {name: entry.copy_id for name, entry in entries.items()}
        # A name may have been stored again and deleted since, and perhaps no answer has told the host.
        settled = [name for name in self._lost if name in objects.names]
        told = {"version": version, "objects": copy_ids, "stored": [*self._added], "settled": settled}
        return {"value": value, **told, **copies}

    def _known(self, result: Any) -> RemoteRef | None:
        """Find the reference to a result that is kept already, for example because a method returns its own object."""
        if self._objects is None:
            return None
        for entry in (*self._added.values(), *tuple(self._objects.entries.values())):
            if entry.value is result:
                return entry.ref
        return None

    def _new_name(self, value: Any) -> str:
        kind = "".join(letter for letter in type(value).__name__.lower() if letter.isascii() and letter.isalnum())
        kind = kind[:80] if kind[:1].isalpha() else "object"
        taken = {*self._added, *self._lost, *(self._objects.entries if self._objects is not None else ())}
        return next(name for number in itertools.count(1) if (name := f"{kind}_{number}") not in taken)

    def _open(self, session_id: str, placement: Placement) -> SessionObjects:
        objects = self._store.open(session_id, placement)
        entries = {}
        for name, (copy_id, copy) in placement.restore.items():
            if copy_id not in objects.seen:
                value = self.restored(copy)
                ref = RemoteRef(name, type_of(value), repr_of(value), size_of(value), session_id)
                entries[name] = Entry(value, ref, copy_id)
        self._store.restore(objects, entries)
        return objects


def _import(name: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        package = allowed_names.PACKAGES.get(name, name)
        raise InvalidCall(f"{target!r}: there is no package {name!r} in the worker: pip install {package}") from None


def _submodule(owner: Any, name: str, attribute: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return _attribute(owner, attribute, target)


def _attribute(owner: Any, name: str, target: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        is_named = isinstance(owner, (type, type(builtins)))
        shown = owner.__name__ if is_named else f"a {type_of(owner)}"
        raise InvalidCall(f"{target!r}: {shown} has no attribute {name!r}") from None


def _can_be_sent(value: Any) -> bool:
    try:
        codec.encode(value)
    except EncodeError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    return type(value) in (type(None), bool, int, float, str, bytes)


def _comes_back(value: Any) -> bool:
    try:
        encoded = codec.encode(value)
        area = b"".join(bytes(part) for part in encoded.buffers)
        return type(codec.decode(encoded.body, area)) is type(value)
    except Exception:
        return False
