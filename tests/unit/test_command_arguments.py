"""How `snakepit run` reads the arguments of a tool from its command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_trio import InvalidArguments
from snakepit_trio._cli.arguments import make_arguments, read_pairs
from snakepit_trio._serving.schemas import function_schema

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
_JSON = st.recursive(_SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4))


def hints(
    *,
    whole: int = 0,
    number: float = 0,
    flag: bool = False,
    text: str = "",
    maybe: str | None = None,
    either: int | str = 0,
    kind: Literal["fast", "slow", 3] = "fast",
    items: list[int] = [],  # noqa: B006
    table: dict[str, float] = {},  # noqa: B006
    anything: Any = None,
) -> None: ...


def needs(n: int, name: str) -> None: ...


def open_ended(**others: int) -> None: ...


_, HINTS = function_schema(hints)
_, NEEDS = function_schema(needs)
_, OPEN = function_schema(open_ended)


def read(*pairs: str, tool: Any = HINTS) -> dict[str, Any]:
    return make_arguments(tool, read_pairs(pairs))


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("whole=5", 5),
        ("whole=-5", -5),
        ("whole=5.0", 5),
        (f"whole={2**70}", 2**70),
        ("number=5", 5),
        ("number=1e3", 1000.0),
        ("flag=true", True),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("text=5", "5"),
        ("text=null", "null"),
        ('text="quoted"', '"quoted"'),
        ("text=@@home", "@home"),
        ("maybe=null", None),
        ("maybe=5", "5"),
        ("either=5", 5),
        ("either=five", "five"),
        ('either="5"', "5"),
        ("kind=slow", "slow"),
        ("kind=3", 3),
        ("items=[1, 2]", [1, 2]),
        ('table={"a": 1}', {"a": 1}),
        ("anything=5", 5),
        ("anything=[1", "[1"),
        ('anything="5"', "5"),
    ],
)
def test_values(pair: str, value: object) -> None:
    (found,) = read(pair).values()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("whole", "'whole' is no argument: write name=value"),
        ("=5", "'=5' is no argument: write name=value"),
        ("whole=five", "hints: whole=five does not fit: give a whole number, such as 5"),
        ("whole=5.5", "hints: whole=5.5 does not fit: expected integer, got 5.5: give a whole number, such as 5"),
        ("whole=1e999", "hints: whole=1e999 does not fit: give a whole number, such as 5"),
        ("number=NaN", "hints: number=NaN does not fit: give a number, such as 0.5"),
        ("flag=True", "hints: flag=True does not fit: give true or false"),
        ("items=1", "hints: items=1 does not fit: expected array, got 1: give a list in JSON, such as '[1, 2]'"),
        ("kind=slwo", "hints: kind=slwo does not fit: 'slwo' is none of ['fast', 'slow', 3]: give one of these"),
        ("txt=a", "hints: there is no argument 'txt'; did you mean 'text'?"),
        ("zz=a", "hints: there is no argument 'zz'; there are: whole, number, "),
        ("text=@/no/file", "text: the file '/no/file' cannot be read: No such file or directory (for a text that"),
        ("text=@/", "text: the file '/' cannot be read: Is a directory"),
        ("text=@", "text: the file '' cannot be read: No such file or directory"),
        ("text=@a\0b", "text: the file 'a\\x00b' cannot be read: embedded null byte"),
        ("text=\udcff", "'text=\\udcff' is no UTF-8"),
        (f"items={'[' * 100_000}", "hints: items=[[["),
    ],
    ids=str,
)
def test_what_does_not_fit(pair: str, message: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        read(pair)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 1000


def test_required_twice_and_other_names() -> None:
    with pytest.raises(InvalidArguments, match=r"needs: 'name' is missing: write name=\.\.\., with a text"):
        read("n=1", tool=NEEDS)
    with pytest.raises(InvalidArguments, match="the argument 'n' is given twice: write it once"):
        read("n=1", "n=2", tool=NEEDS)
    assert read("a=1", "b=2", tool=OPEN) == {"a": 1, "b": 2}
    with pytest.raises(InvalidArguments, match="open_ended: a=x does not fit: give a whole number"):
        read("a=x", tool=OPEN)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("[1, 2]")
    assert read(f"items=@{path}") == {"items": [1, 2]}
    with pytest.raises(InvalidArguments, match=r"hints: text=@... does not fit: expected string, .*: give a text"):
        read(f"text=@{path}")
    path.write_text("[1, 2")
    with pytest.raises(InvalidArguments, match=r"items: the file '.*value.json' has no JSON: Input data was truncated"):
        read(f"items=@{path}")


@given(_JSON)
def test_any_json_arrives(value: object) -> None:
    assert read(f"anything={json.dumps(value)}") == {"anything": value}


@given(st.text())
def test_any_text_arrives(text: str) -> None:
    sign = "@" if text.startswith("@") else ""
    assert read(f"text={sign}{text}") == {"text": text}


@given(st.sampled_from(sorted(HINTS.input["properties"])), st.text() | _JSON.map(json.dumps))
def test_whatever_is_given_is_read_or_refused_by_name(name: str, text: str) -> None:
    try:
        read(f"{name}={text}")
    except InvalidArguments as error:
        assert error.parameter == name  # noqa: PT017
