"""Adapters, codecs, stores and launchers of other packages, found by their entry points and loaded only when named."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from bridge_py.tools.misuse import offer
from bridge_py.wire.errors import UsageError
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.validation import refuse

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

Kind = Literal["adapter", "codec", "store", "launcher"]
KINDS: Final[tuple[Kind, ...]] = ("adapter", "codec", "store", "launcher")
_OBJECT: Final = re.compile(r"[\w.]+( *: *[\w.]+)?( *\[.*\])?")  # with the extras that an old package may name
logger = get_logger("snakepit.config")
_LIST: Final = "`snakepit tools --installed` lists them"


@attrs.frozen
class Plugin:
    """What another package offers: a name, and the object that it stands for, as `module:attribute` or `module`."""

    kind: Kind
    name: str
    target: str
    package: str
    version: str


def installed(kind: Kind | None = None) -> list[Plugin]:
    """List what the packages of this environment offer, of one kind or of all. Nothing of theirs is imported."""
    found = [_plugin(each, entry) for each in KINDS if kind in (None, each) for entry in _entries(each)]
    return sorted(found, key=lambda each: (KINDS.index(each.kind), each.name, each.package))


def load(kind: Kind, name: str) -> Any:
    """Import what a name stands for.

    Raises `UsageError` if no package offers the name, if two packages do, and if the package cannot be imported.
    """
    return _import(kind, _entry(kind, name))


def load_instance(kind: Kind, name: str, base: Any) -> Any:
    """Import what a name stands for, an object of a class or the class itself, and return the object.

    Raises `UsageError` as `load` does, and for anything else.
    """
    found = load(kind, name)
    try:
        made = found() if isinstance(found, type) and issubclass(found, base) else found
    except (Exception, SystemExit) as error:
        raise _wrong(kind, name, f"cannot be made without arguments: {type(error).__name__}: {error}") from error
    if not isinstance(made, base):
        raise _wrong(kind, name, f"names {found!r:.100}, which is no snakepit_trio.{base.__name__}")
    return made


def module_of_codec(name: str) -> str:
    """Import the module whose import registers a codec, and return its name. Raises `UsageError` as `load` does."""
    entry = _entry("codec", name)
    if ":" in entry.value:
        raise _wrong("codec", name, f"names {entry.value}: it must be a module, which calls register_codec")
    _import("codec", entry)
    return entry.module


def to_names(names: object) -> tuple[str, ...]:
    """The names of codecs. Raises `UsageError` for anything but a list of texts."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(each, str) for each in names):
        raise refuse("codecs", names, "give a list of names, such as ['money']")
    return tuple(names)


def _entry(kind: Kind, name: str) -> EntryPoint:
    entries = list(_entries(kind))
    # A package that is on the path twice, as in development, is one package.
    same = {(entry.value, _package(entry)): entry for entry in entries if entry.name == name}
    if not same:
        raise UsageError(
            f"no installed package offers the {kind} {name!r}: {offer(name, {each.name for each in entries})}; {_LIST}"
            + (". A class is written as 'package.module:Class'" if kind == "adapter" else "")
        )
    if len(same) > 1:
        packages = " and ".join(sorted(package for _, package in same))
        raise UsageError(f"{kind} {name!r} is offered by {packages}: uninstall one, or give the object itself")
    return next(iter(same.values()))


def _import(kind: Kind, entry: EntryPoint) -> Any:
    plugin = _plugin(kind, entry)
    failed = f"{kind} {entry.name!r} of the package {plugin.package} {plugin.version} cannot be loaded:"
    # Python's own error would be of a regular expression, and differs between versions.
    if not _OBJECT.fullmatch(entry.value):
        raise UsageError(f"{failed} {entry.value!r} is neither 'module' nor 'module:attribute'")
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # a module may be a program that exits
        raise UsageError(f"{failed} {plugin.target}: {type(error).__name__}: {error}") from error


def _entries(kind: Kind) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # only here: it takes as long as ten of our modules

    group = f"snakepit.{kind}s"
    try:
        return entry_points(group=group)
    except Exception:  # it reads the metadata of all packages, whatever they are for
        return _readable_entries(group)


def _readable_entries(group: str) -> Iterator[EntryPoint]:
    """The entry points of a group, without those of packages whose metadata cannot be read."""
    from importlib.metadata import distributions

    seen = set[str]()
    for package in distributions():
        name = _fact_of(package, "name")
        if name and name in seen:
            continue  # the first on the path counts
        seen.add(name)
        try:
            yield from package.entry_points.select(group=group)
        except Exception as error:
            _warn(name, str(package.locate_file("")), f"{type(error).__name__}: {error}")


@functools.cache  # once for each package
def _warn(name: str, folder: str, why: str) -> None:
    text = "the metadata of %s in %s cannot be read: install it again, or remove it (%.200s)"
    logger.warning(text, name or "a package", folder, why)


def _package(entry: EntryPoint) -> str:
    return _fact(entry, "name") or "an unknown package"


def _plugin(kind: Kind, entry: EntryPoint) -> Plugin:
    return Plugin(kind, entry.name, entry.value, _package(entry), _fact(entry, "version"))


def _fact(entry: EntryPoint, name: Literal["name", "version"]) -> str:
    """The name or the version of a package; empty where its metadata has none, which some Pythons return as None."""
    return _fact_of(entry.dist, name)


def _fact_of(package: Distribution | None, name: Literal["name", "version"]) -> str:
    try:
        return getattr(package, name) or ""
    except Exception:  # later Pythons raise it
        return ""


def _wrong(kind: Kind, name: str, why: str) -> UsageError:
    return UsageError(f"{kind} {name!r} of the package {_package(_entry(kind, name))} {why}")
