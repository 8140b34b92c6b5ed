"""Descriptions of exceptions that a hostile worker sends: none of them runs code, or makes what is no exception."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import msgspec
import pytest

from bridge_py.tools.pickling import PLAIN
from bridge_py.wire import codec
from bridge_py.wire.errors import Fault, error_of
from bridge_py.wire.raised import Raised, describe, rebuild
from snakepit_trio._calls.functions import function_of

ran: list[str] = []
HERE = __name__


class Spy(Exception):
    def __init__(self, *args: object) -> None:
        ran.append("init")

    def __setattr__(self, name: str, value: object) -> None:
        ran.append(f"set {name}")

    def __getattribute__(self, name: str) -> Any:
        ran.append(f"get {name}")
        return super().__getattribute__(name)

    def add_note(self, note: str) -> None:
        ran.append("note")

    def __setstate__(self, state: Any) -> None:
        ran.append("state")

    def __reduce__(self) -> Any:
        ran.append("reduce")
        return super().__reduce__()


class Made(Exception):
    def __new__(cls, *args: object) -> Made:
        ran.append("new")
        return super().__new__(cls, *args)


class Plain:
    def __init__(self, *args: object) -> None:
        ran.append("plain")


class Nest:
    class Inner(Exception):
        pass


class Meta(type):
    def __getattr__(cls, name: str) -> Any:
        ran.append(f"meta {name}")
        return ValueError


class WithMeta(metaclass=Meta):
    pass


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def packed(value: Any) -> bytes:
    return codec.encode(codec.Exact(value), beside=1 << 62).body


def told(module: str = HERE, name: str = "Spy", **parts: Any) -> bytes:
    parts = {key: packed(value) if key in ("args", "state") else value for key, value in parts.items()}
    return msgspec.msgpack.encode(Raised(module, name, **parts))


def nested(depth: int, part: str) -> bytes:
    """A description with others inside, more of them than we would send."""
    inner = msgspec.msgpack.encode({"module": "builtins", "name": "ValueError"})
    key = msgspec.msgpack.encode(part)
    more = b"\x91" if part == "members" else b""
    name = "ExceptionGroup" if part == "members" else "ValueError"
    head = b"\x83" + msgspec.msgpack.encode("module") + msgspec.msgpack.encode("builtins")
    head += msgspec.msgpack.encode("name") + msgspec.msgpack.encode(name) + key + more
    return head * depth + inner


@pytest.fixture(autouse=True)
def nothing_ran() -> Any:
    ran.clear()
    yield
    assert ran == []


def test_an_exception_is_made_without_code_of_its_class() -> None:
    made = rebuild(told(args=(1,), state={"more": 2}, notes=["n"], cause=Raised("builtins", "ValueError")))
    assert type(made) is Spy
    seen = object.__getattribute__(made, "__dict__")
    assert seen == {"more": 2, "__notes__": ["n"]}
    assert repr(vars(BaseException)["__cause__"].__get__(made)) == "ValueError()"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (HERE, "Made"),
        (HERE, "Plain"),
        (HERE, "Nest"),
        (HERE, "packed"),
        (HERE, "ran"),
        (HERE, "Nobody"),
        (HERE, ""),
        (HERE, "Nest.Inner.mro"),
        (HERE, "WithMeta.ValueError"),
        (HERE, "Spy.__init__.__globals__"),
        (HERE, "sys.modules"),
        ("no.such.module", "Error"),
        ("", "ValueError"),
        ("os", "system"),
        ("os.path", "os.system"),
        ("builtins", "eval"),
        ("builtins", "type"),
        ("builtins", "object"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "SystemExit"),
        ("builtins", "StopIteration"),
        ("builtins", "StopAsyncIteration"),
        ("builtins", "BaseException"),
        ("trio", "Cancelled"),
        ("asyncio", "CancelledError"),
        ("bridge_py.wire.errors", "CallTimeout"),
        ("snakepit_trio", "WorkerCrashed"),
        ("snakepit_trio.errors", "PoolClosed"),
    ],
)
def test_what_is_no_exception_of_the_user_stays_a_tool_error(module: str, name: str) -> None:
    assert rebuild(told(module, name)) is None


def test_a_module_is_not_asked_for_what_it_would_make(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = lambda name: ran.append(f"module {name}") or ValueError  # type: ignore[method-assign, func-returns-value]
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)

    class Loading(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            ran.append(f"loads for {name}")
            return super().__getattribute__(name)

    monkeypatch.setitem(sys.modules, "loading_module", Loading("loading_module"))
    monkeypatch.setitem(sys.modules, "no_module", types.SimpleNamespace(Error=ValueError))
    assert rebuild(told("lazy_module", "Error")) is None
    assert rebuild(told("loading_module", "Error")) is None
    assert rebuild(told("no_module", "Error")) is None


def test_a_module_is_not_imported() -> None:
    assert "this" not in sys.modules
    assert rebuild(told("this", "Error")) is None
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "parts",
    [
        {"args": 5},
        {"args": None},
        {"state": 5},
        {"state": [1]},
        {"state": {1: 2}},
        {"state": {"__class__": 1}},
        {"state": {"__dict__": {}}},
        {"state": {"with_traceback": "x"}},
        {"state": {"split": 1}},
        {"state": {"__notes__": 5}},
        {"state": {"args": (1,)}},
    ],
)
def test_parts_of_a_wrong_type_make_nothing(parts: dict[str, Any]) -> None:
    assert rebuild(told("builtins", "ValueError", **parts)) is None


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"module": 1, "name": 2}),
        msgspec.msgpack.encode({"module": "builtins", "name": "ValueError", "args": b"\xff\xff"}),
        msgspec.msgpack.encode({"module": "builtins", "name": "ValueError", "notes": [1]}),
        msgspec.msgpack.encode({"module": "builtins", "name": "ExceptionGroup", "args": packed(("m",))}),
        msgspec.msgpack.encode({"module": "builtins", "name": "UnicodeDecodeError", "args": packed((1,))}),
        nested(100_000, "cause"),
        nested(100_000, "members"),
        nested(5_000, "context"),
        nested(17, "cause"),
    ],
    ids=range(13),
)
def test_broken_descriptions_make_nothing(description: bytes) -> None:
    assert rebuild(description) is None


def test_a_group_may_hold_only_exceptions() -> None:
    wrong = [Raised("builtins", "KeyboardInterrupt"), Raised("builtins", "int"), Raised("os", "system")]
    for member in wrong:
        for name in ("ExceptionGroup", "BaseExceptionGroup"):
            assert rebuild(told("builtins", name, args=("several",), members=[member])) is None


def test_notes_do_not_steer_a_terminal() -> None:
    made = rebuild(told("builtins", "ValueError", notes=["\x1b[2J"]))
    assert made is not None
    assert made.__notes__ == ["\\x1b[2J"]


def test_an_exception_whose_attributes_nobody_may_set_gets_its_cause() -> None:
    raised = Frozen(3)
    Frozen.__init__(raised, 3)
    fault = Fault("tool", "Frozen: 3", raised=describe(raised))
    found = function_of(divmod, False, PLAIN).as_raised(error_of(fault))
    assert type(found) is Frozen
    assert found.code == 3
    assert found.__cause__ is not None
