"""Property: the complexity of a function is 1 + the decision points that were put into it.

Source is generated together with its count, statement by statement, functions nested in functions and
classes; then each function has the complexity that was counted for it, the branches of a file are the
sum of what its functions add to 1 and of what is outside of them, and its complexity is their sum.
"""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st

from bridge_py.adapters.source_metrics import measure_file, measure_source

Counted = tuple[str, int]


@attrs.frozen
class Block:
    """Statements, the decisions in them outside of nested functions, and the decisions of those by name."""

    source: str
    decisions: int
    nested: dict[str, int]


names = st.integers(0, 2).map(lambda number: f"x{number}")
leaves: st.SearchStrategy[Counted] = names.map(lambda name: (name, 0))


def _expressions(inner: st.SearchStrategy[Counted]) -> st.SearchStrategy[Counted]:
    several = st.lists(inner, min_size=2, max_size=4)
    some = st.lists(inner, max_size=2)
    return st.one_of(
        st.tuples(several, st.sampled_from(["and", "or"])).map(
            lambda made: ("(" + f" {made[1]} ".join(e for e, _ in made[0]) + ")", _sum(made[0]) + len(made[0]) - 1)
        ),
        several.map(lambda made: ("(" + " + ".join(e for e, _ in made) + ")", _sum(made))),
        st.tuples(inner, inner, inner).map(
            lambda made: (f"({made[0][0]} if {made[1][0]} else {made[2][0]})", _sum(list(made)) + 1)
        ),
        st.tuples(inner, inner, some).map(
            lambda made: (
                f"[{made[0][0]} for y in {made[1][0]}{''.join(f' if {e}' for e, _ in made[2])}]",
                made[0][1] + made[1][1] + _sum(made[2]) + 1 + len(made[2]),
            )
        ),
        inner.map(lambda made: (f"(lambda: {made[0]})", made[1])),
    )


def _sum(made: list[Counted]) -> int:
    return sum(decisions for _, decisions in made)


expressions = st.recursive(leaves, _expressions, max_leaves=6)
simple = st.one_of(
    expressions.map(lambda made: Block(made[0], made[1], {})),
    expressions.map(lambda made: Block(f"assert {made[0]}", made[1] + 1, {})),
)
#: A compound statement's head, its decisions, and what must follow its body.
heads = st.one_of(
    expressions.map(lambda made: (f"if {made[0]}:", made[1] + 1, "")),
    st.tuples(expressions, expressions).map(
        lambda made: (f"if {made[0][0]}:\n    pass\nelif {made[1][0]}:", made[0][1] + made[1][1] + 2, "else: pass")
    ),
    expressions.map(lambda made: (f"while {made[0]}:", made[1] + 1, "")),
    expressions.map(lambda made: (f"for y in {made[0]}:", made[1] + 1, "else: pass")),
    expressions.map(lambda made: (f"with {made[0]}:", made[1], "")),
    st.integers(1, 3).map(lambda n: ("try:", n, "\n".join(f"except E{i}: pass" for i in range(n)) + "\nfinally: pass")),
    st.integers(1, 3).map(
        lambda n: ("match x:\n" + "\n".join(f"  case {i}: pass" for i in range(n)) + "\n  case _:", n, "")
    ),
)


def _indent(source: str, depth: int = 4) -> str:
    return textwrap.indent(source, " " * depth)


def _compound(head: tuple[str, int, str], body: Block) -> Block:
    opening, decisions, closing = head
    return Block(f"{opening}\n{_indent(body.source)}\n{closing}", body.decisions + decisions, body.nested)


def _function(name: str, opening: str, body: Block) -> Block:
    nested = {f"{name}.{inner}": decisions for inner, decisions in body.nested.items()}
    return Block(f"{opening} {name}():\n{_indent(body.source)}", 0, {name: body.decisions, **nested})


def _class(name: str, body: Block) -> Block:
    nested = {f"{name}.{inner}": decisions for inner, decisions in body.nested.items()}
    return Block(f"class {name}:\n{_indent(body.source)}", body.decisions, nested)


def _numbered(blocks: list[Block]) -> Block:
    """Statements after one another, each in a class of its own, so that no two functions share a name."""
    return _together([_class(f"C{number}", block) if block.nested else block for number, block in enumerate(blocks)])


def _together(blocks: list[Block]) -> Block:
    nested = {name: decisions for block in blocks for name, decisions in block.nested.items()}
    return Block("\n".join(block.source for block in blocks), sum(block.decisions for block in blocks), nested)


def _statements(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    bodies = st.lists(inner, min_size=1, max_size=3).map(_numbered)
    return st.one_of(
        st.builds(_compound, heads, bodies),
        st.builds(_function, st.just("f"), st.sampled_from(["def", "async def"]), bodies),
        st.builds(_class, st.just("K"), bodies),
    )


statements = st.recursive(simple, _statements, max_leaves=12)
files = st.lists(statements, max_size=4).map(_numbered)


@given(files)
def test_complexity_is_one_more_than_the_decisions(made: Block) -> None:
    functions, branches = measure_source(made.source)
    assert {function["name"]: function["complexity"] - 1 for function in functions} == made.nested
    assert len(functions) == len(made.nested)
    assert branches == made.decisions + sum(made.nested.values())


@given(files)
def test_the_sums_of_a_file_agree(made: Block) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.py"
        path.write_text(made.source)
        record = measure_file(str(path))
    assert "error" not in record
    assert record["functions"] == len(record["measured"])
    assert record["complexity"] == sum(function["complexity"] for function in record["measured"])
    assert record["branches"] == made.decisions + record["complexity"] - record["functions"]
    assert all(1 <= f["line"] <= f["line"] + f["length"] - 1 <= record["lines"] for f in record["measured"])


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.py"
        path.write_bytes(content)
        record = measure_file(str(path))
    assert record["complexity"] == sum(function["complexity"] for function in record["measured"])
