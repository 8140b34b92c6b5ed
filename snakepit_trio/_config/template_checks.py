"""Checks of `template=`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.validation import refuse

from .adapters import Adapter, GrpcPython


class Templated(Protocol):
    """A configuration, as far as templates matter."""

    @property
    def template(self) -> bool | Sequence[str]:
        """What the owner of the pool wants."""
        ...

    @property
    def adapter(self) -> Adapter:
        """What the workers run."""
        ...


class HasTemplates(Protocol):
    """A launcher that says whether it has templates."""

    has_templates: bool


def to_template(template: object) -> Any:
    """Make a tuple of a list of modules."""
    if isinstance(template, Sequence) and not isinstance(template, (str, bytes)):
        return tuple(template)
    return template


def check_template(config: Templated, _attribute: object, template: object) -> None:
    """Raise `UsageError` for what is no template, and where there can be none."""
    names = template if isinstance(template, tuple) else ()
    if not isinstance(template, (bool, tuple)) or not all(map(_is_module, names)):
        raise refuse("template", template, "give True, False, or a list of the names of modules to import as well")
    if template is False:
        return
    if sys.platform != "linux":
        raise UsageError("template= is for Linux: this system has no keepers for processes that are forked")
    if not isinstance(config.adapter, GrpcPython):
        raise UsageError(
            f"template= is for adapters that are Python classes, and {config.adapter!r} starts a program of its own: "
            "leave template= out"
        )


def _is_module(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def has_templates(config: Templated, _attribute: object, launcher: HasTemplates | None) -> None:
    """Raise `UsageError` for a launcher without templates, if one is wanted."""
    if config.template is not False and launcher is not None and not launcher.has_templates:
        raise UsageError(
            f"template= is for processes of this machine, and {type(launcher).__name__} starts none: leave it out"
        )
