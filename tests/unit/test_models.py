"""pydantic models as arguments and results: they arrive as themselves where a hint names them."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Annotated, Any, Generic, TypeVar

import pytest

import snakepit_trio as snakepit
from bridge_py.tools.hints import restored
from bridge_py.wire import codec
from bridge_py.wire.codec import Exact
from bridge_py.wire.registry import Marked
from snakepit_trio._calls.functions import read
from snakepit_trio.testing import InMemory

pytest.importorskip("pydantic")
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    PrivateAttr,
    RootModel,
    SecretStr,
    ValidationError,
    field_validator,
)

T = TypeVar("T")
validated: list[object] = []


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: Annotated[float, Field(ge=0)] = 0.5

    @field_validator("x")
    @classmethod
    def note(cls, value: int) -> int:
        validated.append(value)
        return value + 1


class Point3(Point):
    z: int = 3


class Shape(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    points: list[Point]
    colour: Colour | None = None
    by_name: dict[str, tuple[Point, ...]] = {}
    label: str = Field(default="", alias="LABEL")


class Counted(BaseModel):
    name: str
    _count: int = PrivateAttr(7)


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Box(BaseModel, Generic[T]):
    content: T


class Names(RootModel[list[str]]):
    pass


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    secret: SecretStr | None = None
    size: PositiveInt = 1


def counted() -> Counted:
    found = Counted(name="n")
    found._count = 9
    return found


MODELS: list[tuple[Any, Any]] = [
    (Point, Point(x=1)),
    (Point, Point3(x=1, y=2.5, z=4)),
    (
        Shape,
        Shape.model_validate(
            {"points": [Point(x=1), Point3(x=2)], "colour": Colour.RED, "LABEL": "l", "more": [1, {"a": 2}]}
        ),
    ),
    (Shape, Shape(points=[], by_name={"a": (Point3(x=1),)})),
    (Counted, counted()),
    (Tree, Tree(value=1, children=[Tree(value=2), Tree(value=3, children=[Tree(value=4)])])),
    (Box[Point], Box[Point](content=Point(x=1))),
    (Names, Names(["a", "b"])),
    (Odd, Odd(size=3)),
    (list[Point], [Point(x=1), Point3(x=2)]),
    (Point | Colour | None, Point(x=1)),
    (dict[str, Point], {"a": Point(x=1)}),
]


class _Frame:
    attached = b""

    def __init__(self, value: Any) -> None:
        self.body = codec.encode(Exact(value), beside=1 << 62).body


@pytest.mark.parametrize(("hint", "model"), MODELS, ids=range(len(MODELS)))
def test_a_model_arrives_as_itself_and_is_not_validated_again(hint: Any, model: Any) -> None:
    validated.clear()
    frame: Any = _Frame(model)
    found = read("f", frame, hint)
    assert found == model
    assert type(found) is type(model)
    assert repr(found) == repr(model)
    assert validated == []
    if isinstance(model, BaseModel):
        assert found.model_dump() == model.model_dump()
        assert found.__pydantic_private__ == model.__pydantic_private__
        assert found.model_copy() == model


def test_without_a_hint_a_model_is_its_fields() -> None:
    assert codec.decode(codec.encode(Point(x=1)).body) == {"x": 2, "y": 0.5}


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Point, Counted(name="n"), "Expected `Point`, got `Counted`"),
        (Counted, Point(x=1), "Expected `Counted`, got `Point`"),
        (Point, Colour.RED, "Expected `Point`, got `Colour`"),
        (Box[Point], Box[int](content=1), r"Expected `Box\[Point\]`, got `Box\[int\]`"),
        (Point, Point.model_construct(x="no", y=1.0), "Expected `int`, got `str`"),
    ],
)
def test_what_is_no_such_model_is_told(hint: Any, value: Any, message: str) -> None:
    frame: Any = _Frame(value)
    with pytest.raises(snakepit.DecodeError, match=message):
        read("f", frame, hint)


@pytest.mark.parametrize(
    "content",
    [[], {}, {"x": 1, 2: 3}, {"x": 1, "z": 3}, {"x": 1, "__dict__": {}}, {"y": 1.0}, 5],
)
def test_fields_that_are_not_those_of_the_model_are_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="no field"):
        restored(Marked("Point", None, content), Point)


def moved(point: Point, by: int) -> Point:
    return point.model_copy(update={"x": point.x + by})


def boxed(*points: Point, **shapes: Shape) -> list[BaseModel | str]:
    return [*(type(each).__name__ for each in (*points, *shapes.values()))]


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(workers=1, launcher=InMemory()) as opened:
        yield opened  # noqa: ASYNC119


async def test_functions_take_and_give_models(pool: snakepit.Pool) -> None:
    point = Point(x=1)
    assert await pool.run(moved, point, 3) == Point(x=4)
    assert await pool.run(moved, Point3(x=1), 0) == Point3(x=1)
    assert await pool.run(boxed, point, Point3(x=1), a=Shape(points=[point])) == ["Point", "Point3", "Shape"]
    assert await pool.run(Point, x=1) == point
    async with pool.map(Point.model_validate, [{"x": 1}, {"x": "no"}], pairs=True) as results:
        (_, first), (_, second) = [pair async for pair in results]
    assert first.unwrap() in (point, {"x": 2, "y": 0.5})
    with pytest.raises((ValidationError, snakepit.ToolError), match="valid integer"):
        second.unwrap()
