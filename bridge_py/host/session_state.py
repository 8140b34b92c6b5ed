"""A session's variables and programs, as the code of a call sees them: asked of the host, or remembered.

The code is written as `Questions`, so that tools that block and coroutines that await share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bridge_py.wire import types
from bridge_py.wire.errors import VariableNotFound
from bridge_py.wire.variable import AccessRules, Variable, list_of_names, no_name
from bridge_py.wire.verbs import VERBS, unpack

from .asking import Questions
from .cache import SessionCache

_NOTHING: Final[Mapping[str, Any]] = {}


class SessionState:
    """The state of a call's session."""

    def __init__(self, cache: SessionCache, ttl: float, strict: bool) -> None:
        self.cache = cache
        self.ttl = ttl
        self.strict = strict

    def cached(self, identifier: str) -> Variable | None:
        """Return a remembered variable, without asking the host; None if there is none."""
        try:
            return self.cache.get(identifier, self.ttl)
        except TypeError:  # a list, or a dict, has no hash
            raise no_name(identifier) from None

    def register_variable(
        self,
        name: str,
        type: str | None,
        value: Any,
        constraints: Mapping[str, Any],
        metadata: Mapping[str, str],
        access_rules: AccessRules | None,
    ) -> Questions[Variable]:
        """Add a variable."""
        kind = types.infer_type(value) if type is None else type
        rules = None if access_rules is None else [access_rules.read_only, access_rules.owner]
        found: Variable = yield from self.ask(
            "register_variable", name, kind, value, dict(constraints), dict(metadata), rules
        )
        return found

    def get_variable(self, identifier: str, bypass_cache: bool = False) -> Questions[Variable]:
        """Return one variable."""
        if not bypass_cache and (found := self.cached(identifier)) is not None:
            return found.detached()
        found_there: Variable = yield from self.ask("get_variable", identifier)
        return found_there

    def get_variables(
        self, identifiers: Iterable[str], bypass_cache: bool
    ) -> Questions[tuple[dict[str, Variable], list[str]]]:
        """Return several variables and the missing names. Takes one round trip, or none if all are remembered."""
        asked = list_of_names(identifiers)
        known = {} if bypass_cache else {name: found for name in asked if (found := self.cached(name)) is not None}
        unknown = [name for name in asked if name not in known]
        missing: list[str] = []
        if unknown:
            found_there, missing = yield from self.ask("get_variables", unknown)
            known |= found_there
        return {name: known[name].detached() for name in asked if name in known}, missing

    def has_variable(self, identifier: str) -> Questions[bool]:
        """Whether there is such a variable."""
        if self.cached(identifier) is not None:
            return True
        return bool((yield from self.ask("has_variable", identifier)))

    def update_variable(
        self, identifier: str, value: Any, expected_version: int | None, metadata: Mapping[str, str]
    ) -> Questions[Variable]:
        """Set a value."""
        found: Variable = yield from self.ask("update_variable", identifier, value, expected_version, dict(metadata))
        return found

    def update_variables(
        self, updates: Mapping[str, Any], atomic: bool, metadata: Mapping[str, str]
    ) -> Questions[dict[str, Variable | Exception]]:
        """Set several values, in one round trip."""
        outcome: dict[str, Variable | Exception] = yield from self.ask(
            "update_variables", dict(updates), atomic, dict(metadata)
        )
        return outcome

    def assign(self, identifier: str, value: Any) -> Questions[Variable]:
        """Set a value. A missing variable is added, unless the adapter is strict."""
        try:
            return (yield from self.update_variable(identifier, value, None, _NOTHING))
        except VariableNotFound:
            if self.strict:
                raise
        return (yield from self.register_variable(identifier, None, value, _NOTHING, _NOTHING, None))

    def ask(self, verb: str, *arguments: Any) -> Questions[Any]:
        """Ask with a verb of `VERBS` and all of its arguments; variables in the answer are remembered."""
        answer = yield verb, arguments
        packed = answer.value()
        return unpack(VERBS[verb].answer, packed, lambda each: self._keep(each, answer.stamp))

    def _keep(self, raw: Any, stamp: int) -> Variable:
        # The copy does not refer to shared memory, which the host wants back and which each reading would copy.
        found = Variable.unpack(raw).detached()
        self.cache.put(found, stamp)
        return found.detached()
