"""Pickles of functions, arguments, results and exceptions, for a pool that was opened with `pickle=True`.

cloudpickle (https://github.com/cloudpipe/cloudpickle) writes them. It sends functions and classes whole if they are in
no module that could be imported. Those of the program's own script are named by the script, as in a call by name: the
worker has loaded it under another name, and there must not be two of each class.

A pickle may run any code where it is read. So a side reads pickles only where it was told to.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from bridge_py.wire import codec
from bridge_py.wire.codec import Exact
from bridge_py.wire.environment import SCRIPT_MODULE
from bridge_py.wire.errors import CodecError, Fault
from bridge_py.wire.extras import install
from bridge_py.wire.raised import (
    MOST_BYTES,
    can_be_raised,
    complete,
    fault_with,
    is_made_again,
    is_ours,
    made_again,
    made_of,
)
from bridge_py.wire.registry import Refused, has_codec, parts_of
from bridge_py.wire.specs import PICKLED

from .targets import attribute_of, main_place, module_of

_PYTHON: Final = bytes(sys.version_info[:2])  # stands before each pickle: code is not the same in other versions
_ENOUGH: Final = 1 << 20  # bytes of a pickle that is made only to see whether it can be made
_NOWHERE: Final = 1 << 62
_LOOK_DOWN: Final = 32  # parts, one inside the other
_MISSING: Final = f"cloudpickle is missing in the environment of {{}}: {install('pickle')} there"


class Values:
    """How the values of a function's call are sent and read: as the codec takes them, without pickles."""

    #: Ends the names of the tools that run functions.
    suffix = ""
    unpickle: Callable[[bytes | memoryview], Any] | None = None

    def exact(self, value: Any) -> Any:
        """Have a value sent. Its error says if a pickle could send it."""
        return value if type(value) in codec.SURE_LEAVES else Exact(value, None, advice)

    def fault(self, error: BaseException) -> Fault:
        """Describe an exception for the peer."""
        return fault_with(error)


class PickledValues(Values):
    """As `Values`, with a pickle for each value that has parts which the codec does not take."""

    suffix = PICKLED

    def __init__(self, *, imports: bool) -> None:
        self.unpickle = lambda data: _load(data, imports=imports)

    def exact(self, value: Any) -> Any:
        return value if type(value) in codec.SURE_LEAVES else Exact(value, pickled)

    def fault(self, error: BaseException) -> Fault:
        fault = fault_with(error)
        if fault.code == "tool":
            fault.pickled = _error_pickle(error)
        return fault


PLAIN: Final = Values()
#: What a host reads names only classes that it has loaded already, where they are of a script.
OF_HOST: Final = PickledValues(imports=False)
OF_WORKER: Final = PickledValues(imports=True)


def is_available() -> bool:
    """Whether this process can write and read pickles."""
    try:
        _cloudpickle()
    except CodecError:
        return False
    return True


def advice(part: Any) -> str:
    """What to say about a part of a value that the codec does not take."""
    return ". open_pool(pickle=True) sends it" if _is_picklable(part) else ""


def exception_of(data: bytes, values: Values) -> Exception | None:
    """Read the exception that `fault` has pickled. Returns None if it cannot be read, or looks like one of ours."""
    if not data or values.unpickle is None:
        return None
    try:
        found = values.unpickle(data)
    except CodecError:
        return None
    return found if can_be_raised(found) and not is_ours(type(found)) else None


def pickled(value: Any) -> bytes:
    """Pickle a value. Raises `Refused`, with the path of the part that cannot be pickled."""
    try:
        return _dump(value)
    except Exception as error:
        path, why = _culprit(value, "", error, ())
        raise Refused(f"it cannot be pickled: {type(why).__name__}: {why}", path) from None


def at_place(place: str, name: str) -> NoReturn:
    """Stands in pickles for a function, or a class, of a script: `_Unpickler` has another function in its place."""
    raise CodecError(f"{place}:{name} can be read by a worker only")


def _dump(value: Any, *, chains: bool = True) -> bytes:
    file = io.BytesIO()
    file.write(_PYTHON)
    _pickler()(file, chains).dump(value)
    return file.getvalue()


def _load(data: bytes | memoryview, *, imports: bool) -> Any:
    """Read a pickle, and run what is in it. Raises `CodecError`."""
    _cloudpickle()
    file = io.BytesIO(data)
    if (python := file.read(len(_PYTHON))) != _PYTHON:
        theirs, ours = (".".join(map(str, version)) for version in (python, _PYTHON))
        raise CodecError(
            f"a pickle of Python {theirs} has come to Python {ours}: with pickle=True, both must be the same"
        )
    try:
        return _Unpickler(file, imports).load()
    except CodecError:
        raise
    except ModuleNotFoundError as error:
        raise CodecError(
            f"a pickle needs the module {error.name!r}, which cannot be imported where it has come: {error}"
        ) from error
    except (Exception, SystemExit, GeneratorExit) as error:
        raise CodecError(f"a pickle cannot be read: {type(error).__name__}: {error}") from error


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        raise CodecError(_MISSING.format(sys.executable)) from None
    return cloudpickle


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, imports: bool) -> None:
        super().__init__(file)
        self._imports = imports

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (__name__, at_place.__name__):
            return _imported if self._imports else _loaded
        # The program that `python -m` has started has another name here than in its workers.
        main = sys.modules["__main__"]
        if module == getattr(getattr(main, "__spec__", None), "name", None):
            return _found(attribute_of(main, name), module, name)
        return super().find_class(module, name)


def _imported(place: str, name: str) -> Any:
    return _found(attribute_of(module_of(place, name), name), place, name)


def _loaded(place: str, name: str) -> Any:
    modules = [
        module for key, module in list(sys.modules.items()) if key == "__main__" or key.startswith(SCRIPT_MODULE)
    ]
    here = next((module for module in modules if main_place(module) == place), None)
    return _found(None if here is None else attribute_of(here, name), place, name)


def _found(found: Any, place: str, name: str) -> Any:
    if found is None:
        raise CodecError(f"a pickle names {name!r} of {place}, which is not there: define it at the top of the script")
    return found


@functools.cache
def _pickler() -> Any:
    base: Any = _cloudpickle().Pickler

    class Pickler(base):  # type: ignore[misc]  # cloudpickle has no types
        def __init__(self, file: Any, chains: bool) -> None:
            super().__init__(file)
            self._chains = chains

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, (type, types.FunctionType)):
                if (place := _place_of(value)) is not None:
                    return at_place, (place, value.__qualname__)
            elif isinstance(value, BaseException) and is_made_again(type(value)):
                return _reduced(value, self._chains)
            elif has_codec(type(value)):
                return codec.decode, (codec.encode(value, beside=_NOWHERE).body,)
            return super().reducer_override(value)

    return Pickler


def _place_of(value: Any) -> str | None:
    """The script that has a class or a function under its own name; None if no script has."""
    name = getattr(value, "__module__", None)
    if not isinstance(name, str) or not (name == "__main__" or name.startswith(SCRIPT_MODULE)):
        return None
    module = sys.modules.get(name)
    if module is None or attribute_of(module, value.__qualname__) is not value:
        return None
    return main_place(module)


# Exceptions. Their own way to be pickled forgets their chain, and fails if `__init__` takes other arguments.


def _reduced(error: BaseException, chains: bool) -> tuple[Any, ...]:
    args, state = made_of(error)
    if isinstance(error, BaseExceptionGroup):
        args = (*args, list(error.exceptions))
    chain = (error.__cause__, error.__context__, error.__suppress_context__) if chains else None
    notes = list(getattr(error, "__notes__", ()))
    return made_again, (type(error), args), (state, notes, chain), None, None, _set_state


def _set_state(error: BaseException, given: tuple[dict[str, Any], list[str], Any]) -> None:
    complete(error, *given)


def _error_pickle(error: BaseException) -> bytes:
    """Pickle an exception, at least without its chain; empty bytes if that cannot be."""
    for chains in (True, False):
        try:
            found = _dump(error, chains=chains)
        except Exception:  # noqa: S112 - then it arrives as a `ToolError`
            continue
        if len(found) <= MOST_BYTES:
            return found
    return b""


# What cannot be pickled.


def _culprit(value: Any, path: str, error: Exception, above: tuple[int, ...]) -> tuple[str, Exception]:
    """Find the smallest part of a value that cannot be pickled, and the reason."""
    above = (*above, id(value))
    for label, part in _parts_of(value) if len(above) <= _LOOK_DOWN else ():
        if id(part) in above:  # the value contains itself
            continue
        try:
            _dump(part)
        except RecursionError:
            continue
        except Exception as why:
            return _culprit(part, path + label, why, above)
    return path, error


def _parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    yield from parts_of(value)
    if isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if cell != types.CellType():  # it has a content
                yield f" (its variable {name!r})", cell.cell_contents
        names = set(value.__code__.co_names) & value.__globals__.keys() if _place_of(value) is None else ()
        yield from ((f" (its global {name!r})", value.__globals__[name]) for name in sorted(names))
    elif type(getattr(value, "__dict__", None)) is dict and not isinstance(value, type):
        yield from ((f".{name}", part) for name, part in vars(value).items())


class _EnoughError(Exception):
    """A pickle has so many bytes that the rest of it is not worth the time."""


class _Sink(io.RawIOBase):
    """A file that keeps nothing."""

    _size = 0

    def write(self, data: Any) -> int:
        self._size += len(data)
        if self._size > _ENOUGH:
            raise _EnoughError
        return len(data)


def _is_picklable(part: Any) -> bool:
    try:
        _pickler()(_Sink(), True).dump(part)
    except _EnoughError:
        return True
    except CodecError:  # there is no cloudpickle: that is said when the pool is opened
        return callable(part)
    except Exception:
        return False
    return True
