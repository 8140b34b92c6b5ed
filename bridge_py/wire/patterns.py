"""Regular expressions that others have given, searched for in a bounded time.

Python's `re` tries one way through a pattern after another. There are short patterns, and short texts, for which it
takes years. Where that may happen, a pattern is followed along all of its ways at once, as finite automata do: the time
grows with the length of the text and of the pattern. Patterns that look around, or refer to their groups, cannot be
followed like this.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, NamedTuple

from .errors import InvalidValue

LONGEST_TEXT: Final = 10_000  # characters that a pattern of others is searched in
_MOST_STATES: Final = 2_000
_MOST_STEPS: Final = 200_000
_FEW_STEPS: Final = 1_000_000  # of `re`
_FEW_WAYS: Final = 16
_NARROW: Final = 64
_MANY: Final = 1_000_000

_LONGEST_PATTERN: Final = 1_000
_BEGINNINGS: Final = ("AT_BEGINNING", "AT_BEGINNING_STRING")

_parser: Final[Any] = import_module("re._parser")
_compiler: Final[Any] = import_module("re._compiler")
_CHARACTERS: Final = ("LITERAL", "NOT_LITERAL", "ANY", "IN")
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT")
_END: Final = 0


class _TakesTooLong(Exception):
    """A search has taken more steps than it may."""


class _Unknown(Exception):
    """A pattern has a part that cannot be followed along all of its ways."""


def check_given(pattern: object) -> None:
    """Raise `InvalidValue` for a pattern of others for which the time of a search has no bound."""
    if not isinstance(pattern, str):
        return  # it is no pattern at all, which its type says
    if len(pattern) > _LONGEST_PATTERN:
        raise InvalidValue(
            f"a pattern of {len(pattern)} characters: give {_LONGEST_PATTERN} at most", "string", "pattern"
        )
    with contextlib.suppress(re.error):  # which its type says too
        if not _shape(pattern).is_quick_in(LONGEST_TEXT) and _automaton(pattern) is None:
            text = "its time has no bound: give it without looking around, references to groups, and large repeats"
            raise InvalidValue(f"the pattern {pattern!r:.200} is refused: {text}", "string", "pattern")


def finds(pattern: str, text: str) -> bool:
    """Whether `re.search` would find a pattern in a text. Raises `InvalidValue` if that would take too long.

    The time is bounded for all patterns that `check_given` lets pass.
    """
    automaton = None if _shape(pattern).is_quick_in(len(text)) else _automaton(pattern)
    if automaton is None:
        return re.search(pattern, text) is not None
    if len(text) <= LONGEST_TEXT:
        with contextlib.suppress(_TakesTooLong):
            return automaton.finds(text)
    what = f"a text of {len(text)} characters takes too long to be compared with the pattern {pattern!r:.200}"
    raise InvalidValue(f"{what}: give at most {LONGEST_TEXT} characters, or a simpler pattern", "string", "pattern")


class _Shape(NamedTuple):
    """What tells how long `re` may search for a pattern."""

    ways: int  # through it, apart from its loops
    loops: int  # repeats without an end; 2 stands for more, and for what cannot be judged
    width: int  # the longest text that it fits
    is_anchored: bool  # whether it fits only at the beginning of a text

    def is_quick_in(self, length: int) -> bool:
        """Whether a search in a text of so many characters takes about as long as reading it."""
        starts = 1 if self.is_anchored else length
        if self.loops == 0:
            few = self.ways <= _FEW_WAYS and self.width <= _NARROW
            return few or self.ways * min(self.width, length) * starts <= _FEW_STEPS
        is_line = self.is_anchored and self.ways <= _FEW_WAYS
        return self.loops == 1 and (is_line or self.ways * length * starts <= _FEW_STEPS)


@lru_cache(256)
def _shape(pattern: str) -> _Shape:
    tree = _parser.parse(pattern)
    ways, loops = _ways_and_loops(tree)
    is_anchored = bool(tree) and getattr(tree[0][1], "name", "") in _BEGINNINGS and not tree.state.flags & re.MULTILINE
    return _Shape(ways, loops, int(tree.getwidth()[1]), is_anchored)


def _ways_and_loops(items: Any) -> tuple[int, int]:
    ways, loops = 1, 0
    for kind, content in items:
        more_ways, more_loops = _ways_and_loops_of(kind.name, content)
        ways, loops = min(ways * more_ways, _MANY), loops + more_loops
    return ways, loops


def _ways_and_loops_of(name: str, content: Any) -> tuple[int, int]:
    if name in _CHARACTERS or name == "AT":
        return 1, 0
    if name == "SUBPATTERN":
        return _ways_and_loops(content[3])
    if name == "BRANCH":
        branches = [_ways_and_loops(branch) for branch in content[1]]
        return sum(ways for ways, _ in branches), sum(loops for _, loops in branches)
    if name not in _REPEATS:
        return 1, 2
    least, most, part = content
    ways, loops = _ways_and_loops(part)
    if most == _parser.MAXREPEAT:
        return 1, 1 if (ways, loops) == (1, 0) else 2
    return (1, 2) if loops else (min(ways ** min(most, 64) * (most - least + 1), _MANY), 0)


@lru_cache(256)
def _automaton(pattern: str) -> _Automaton | None:
    try:
        return _Automaton(_parser.parse(pattern))
    except (_Unknown, RecursionError):
        return None


class _Automaton:
    """The states of one pattern. Each has a test for a character or a place, and the states that follow it."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._tests: list[re.Pattern[str] | None] = [None]
        self._takes: list[bool] = [False]  # whether the test is for a character, which is then behind
        self._next: list[list[int]] = [[]]
        self._known: list[dict[str, bool]] = [{}]
        self._start = self._sequence(tree, tree.state.flags, _END)

    def finds(self, text: str) -> bool:
        """Whether the pattern is anywhere in a text. Raises `_TakesTooLong`."""
        here: Iterable[int] = ()
        steps = 0
        for at in range(len(text) + 1):
            reached = self._reached([*here, self._start], text, at)
            if _END in reached:
                return True
            steps += len(reached) + 1
            if steps > _MOST_STEPS:
                raise _TakesTooLong
            if at < len(text):
                here = [
                    each
                    for state in reached
                    if self._takes[state] and self._passes(state, text, at)
                    for each in self._next[state]
                ]
        return False

    def _reached(self, states: list[int], text: str, at: int) -> set[int]:
        """All states that are reached from these without taking a character."""
        reached = set[int]()
        while states:
            state = states.pop()
            if state in reached:
                continue
            reached.add(state)
            test = self._tests[state]
            if not self._takes[state] and (test is None or test.match(text, at) is not None):
                states += self._next[state]
        return reached

    def _passes(self, state: int, text: str, at: int) -> bool:
        known, character = self._known[state], text[at]
        passes = known.get(character)
        if passes is None:
            test = self._tests[state]
            assert test is not None
            passes = known[character] = test.match(text, at) is not None
        return passes

    def _add(self, following: list[int], test: re.Pattern[str] | None = None, *, takes: bool = False) -> int:
        if len(self._tests) > _MOST_STATES:
            raise _Unknown
        self._tests.append(test)
        self._takes.append(takes)
        self._next.append(following)
        self._known.append({})
        return len(self._tests) - 1

    def _sequence(self, items: Any, flags: int, then: int) -> int:
        """Add the states of a sequence, which lead to `then`. Returns the first."""
        for kind, content in reversed(list(items)):
            then = self._item(kind.name, kind, content, flags, then)
        return then

    def _item(self, name: str, kind: Any, content: Any, flags: int, then: int) -> int:
        if name in _CHARACTERS or name == "AT":
            item = _parser.SubPattern(self._tree.state, [(kind, content)])
            return self._add([then], _compiler.compile(item, flags), takes=name != "AT")
        if name == "BRANCH":
            return self._add([self._sequence(branch, flags, then) for branch in content[1]])
        if name == "SUBPATTERN":
            _, more, fewer, inside = content
            return self._sequence(inside, (flags | more) & ~fewer, then)
        if name in _REPEATS:
            least, most, part = content
            return self._repeat(least, most, part, flags, then)
        raise _Unknown

    def _repeat(self, least: int, most: Any, inside: Any, flags: int, then: int) -> int:
        if most == _parser.MAXREPEAT:
            again = self._add([then])
            self._next[again].append(self._sequence(inside, flags, again))
            then = again
        else:
            end = then
            for _ in range(most - least):
                then = self._add([self._sequence(inside, flags, then), end])
        for _ in range(least):
            then = self._sequence(inside, flags, then)
        return then
