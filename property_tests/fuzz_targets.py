"""What `fuzz` tries broken bytes on: each target draws valid messages, breaks them, and reads what has become of them.

A target's `read` raises one of the target's `errors`, which are the documented ones, or nothing.
"""

from __future__ import annotations

import pickle
import random
import traceback
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import strategies as st

from bridge_py.contract.statuses import error_of_status, failure_of, json_text, plain_text, status_of
from bridge_py.tools.adapter import Tool
from bridge_py.wire import codec
from bridge_py.wire.any_values import PREFIX, AnyValue, decode_any, encode_any, encode_parameter
from bridge_py.wire.errors import (
    DecodeError,
    EncodeError,
    HostToolError,
    InvalidArguments,
    InvalidValue,
    SnakepitError,
    ToolError,
    error_of,
    fault_of,
    raised_by,
)
from snakepit_trio._config.stdio_adapters import StdioJson, StdioMsgpack
from snakepit_trio.testing.strategies import arrays, plain_values, values, variables

from .fuzz_frames import Frames, LaneFrames
from .fuzz_target import Parts, Target, drawn

_LONGEST_ERROR: Final = 500_000  # characters

_MSGPACK_TOKENS: Final = [
    *(bytes((lead,)) for lead in (0x80, 0x81, 0x90, 0x91, 0xA0, 0xC0, 0xC1, 0xC2, 0xCA, 0xCB, 0xCF, 0xD3, 0xE0)),
    *(lead + size for lead in (b"\xc6", b"\xc9", b"\xdb", b"\xdd", b"\xdf") for size in (b"\0\0\0\2", b"\xff" * 4)),
    *(bytes((0xC7, size, code)) for size in (0, 3, 30) for code in (*range(1, 26), 32, 99)),
    *(bytes((lead, code)) for lead in (0xD4, 0xD8) for code in (1, 13, 16, 21)),
    *(
        b"\x91" * 2_000,
        b"\x81\xa1a" * 2_000,
        b"\xd4\x0d\x92\x00\xcd\xff\xff",
        b"\xa5range\x93\x00\xcf\x0f" + b"\xff" * 7,
    ),
    *(b"\xa9OrderedDict", b"\xa7Counter", b"\xa8Fraction", b"\xa5deque", b"\xa4zone", b"\xa5DataFrame", b"\xa3|O8"),
]


def _encoded(found: list[Any]) -> list[Parts]:
    """Encode values, each as a body and an area. Values that cannot be sent are left out."""
    parts: list[Parts] = []
    for index, value in enumerate(found):
        try:
            packed = codec.encode(value, beside=(1, 64, codec.BESIDE_BYTES)[index % 3])
        except EncodeError:
            continue
        parts.append((packed.body, b"".join(packed.buffers)))
    return parts


class Values(Target):
    """Arguments, results and variables: of the link, of the wire contract, and of stdio."""

    errors = (DecodeError, InvalidArguments)
    tokens = _MSGPACK_TOKENS
    _URLS: ClassVar = [
        PREFIX + name
        for name in (
            *("google.protobuf.StringValue", "google.protobuf.Value", "snakepit.tensor.binary", "snakepit.nothing"),
            *("snakepit.embedding.binary", "snakepit.embedding", "snakepit.tensor", "snakepit.integer"),
            *("snakepit.float", "snakepit.boolean", "snakepit.choice", "snakepit.module", "snakepit.string"),
        )
    ]

    def __init__(self, number: int, count: int) -> None:
        super().__init__(number, count)
        self._any = [
            *(
                encode_any(each.value, each.type, binary_from=(0, 80)[index % 2])
                for index, each in enumerate(self._typed)
            ),
            *map(encode_parameter, self._plain),
        ]
        self._frames = [
            *(self._json.encode({"type": "result", "value": value}) for value in self._plain if _is_small(value)),
            *(self._msgpack.encode({"type": "result", "value": value}) for value in self._plain if _is_small(value)),
        ]
        self._tools = [Tool(take, "take") for take in _TAKERS]

    def valid(self, number: int, count: int) -> list[Parts]:
        from .value_kinds import kinds, nested

        self._json, self._msgpack = StdioJson("worker.py"), StdioMsgpack("worker.py")
        self._typed = drawn(variables(), count // 4 + 1, number)
        self._plain = drawn(plain_values(), count // 4 + 1, number)
        ours = st.one_of(kinds["plain"], kinds["moments"], kinds["members"], kinds["objects"], kinds["numpy"])
        found = [*drawn(nested(ours), count, number), *drawn(values(arrays=True), count // 2, number)]
        arguments = [({"value": value}) for value in found[: count // 2]]
        return _encoded([*found, *arguments])

    def read(self, parts: Parts, chance: random.Random) -> None:
        how = chance.randrange(8)
        if how < 3:
            _send_on(codec.decode(*parts, plain=chance.random() < 0.5, trusted=chance.random() < 0.5))
        elif how == 3:
            codec.decode_marked(*parts)
        elif how < 6:
            chance.choice(self._tools).arguments(parts[0], parts[1], None)
        elif how == 6:
            self._read_any(chance.choice(self._any), chance)
        else:
            frame = self._mutations.changed(chance, chance.choice(self._frames))
            chance.choice((self._json, self._msgpack)).decode(frame)

    def _read_any(self, found: AnyValue, chance: random.Random) -> None:
        url = found.type_url if chance.random() < 0.8 else chance.choice(self._URLS)
        binary = found.binary if found.binary is None else self._mutations.changed(chance, found.binary)
        value = self._mutations.changed(chance, found.value) if chance.random() < 0.9 else found.value
        decode_any(url, value, binary if chance.random() < 0.5 else found.binary)


def _send_on(value: Any) -> None:
    """Read all of a value that has arrived."""
    try:
        codec.encode(value)
    except EncodeError:
        return


def _is_small(value: Any) -> bool:
    try:
        msgspec.msgpack.encode(value)
        msgspec.json.encode(value)
    except (ValueError, OverflowError):
        return False
    return True


def _taker(hint: Any) -> Callable[..., None]:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    return take


_TAKERS: Final = [
    _taker(hint)
    for hint in (
        *(int, str, float, bytes, bool, list[int], dict[str, float], set[int], tuple[int, ...], np.ndarray),
        *(dict[int, list[str] | None], list[dict[str, Any]], frozenset[str], Any, complex, range),
    )
]


class Tables(Target):
    """Frames, series and tables of pandas, polars and pyarrow, and the Arrow streams in them."""

    errors = (DecodeError,)
    tokens: ClassVar = [
        *_MSGPACK_TOKENS[:40],
        *(b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x00\x00\x00\x00", b"ARROW1\0\0", b"ARROW:extension:name"),
    ]

    def valid(self, number: int, count: int) -> list[Parts]:
        from tests.helpers.broken_tables import SEEDS

        from .value_kinds import kinds

        known = [value for made in SEEDS.values() for value in made()]
        return _encoded(
            [*known, *(v for kind in ("pandas", "polars", "pyarrow") for v in drawn(kinds[kind], count, number))]
        )

    def read(self, parts: Parts, chance: random.Random) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = codec.decode(*parts, trusted=chance.random() < 0.5)
            if chance.random() < 0.3:
                _send_on(value)


class Pickles(Target):
    """Pickles of numpy arrays, as historic peers of the wire contract write them."""

    errors = (DecodeError,)
    tokens: ClassVar = [
        *(
            opcode.encode()
            for opcode in "().012NIJKMLFGSTUVXBC]}lde asutbicoRQP\x85\x86\x87\x88\x89\x8a\x8b\x8f\x93\x94"
        ),
        *(b"\x80\x05", b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"\x8d" + b"\x7f" * 8, b"\x8b" + b"\xff" * 4),
        *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cos\nsystem\n"),
        *(b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n", b"cnumpy._core.numeric\n_frombuffer\n", b"I01\n"),
        *(
            b"r" + b"\xff" * 4,
            b"j" + b"\xff" * 4,
            b"q\x00",
            b"h\x00",
            b"L" + b"9" * 5_000 + b"L\n",
            b"cbuiltins\neval\n",
        ),
    ]
    _ABOUT: ClassVar = b'{"shape": [5], "dtype": "float64", "binary_format": "pickle", "type": "%s"}'

    def valid(self, number: int, count: int) -> list[Parts]:
        found = [
            *drawn(arrays(), count, number),
            *drawn(st.lists(st.floats() | st.integers() | st.text(max_size=5) | st.complex_numbers()), count, number),
            *(
                np.float64(1.5),
                np.int8(-3),
                np.bool_(True),
                np.zeros((2, 0, 3)),
                np.arange(6).reshape(2, 3).T,
                [[np.ones(2)]],
            ),
        ]
        return [(pickle.dumps(value, protocol),) for value in found for protocol in (0, 2, 4, 5)]

    def read(self, parts: Parts, chance: random.Random) -> None:
        name = chance.choice(("tensor", "tensor", "embedding"))
        url = f"{PREFIX}snakepit.{name}.binary"
        decode_any(url, self._ABOUT % name.encode(), parts[0], allow_pickle=True)


class Faults(Target):
    """Errors that a peer describes: bodies of error frames, and texts and statuses of the wire contract."""

    errors = (DecodeError,)
    tokens: ClassVar = [
        *_MSGPACK_TOKENS[:30],
        *(b"\xa4code", b"\xa7message", b"\xa4type", b"\xa9traceback", b"\xa9parameter", b"\xa4tool", b"\xa9host_tool"),
        *(
            b'"message"',
            b'"stacktrace"',
            b"null",
            b"[" * 2_000,
            b'{"a":' * 2_000,
            b"\n" * 100,
            b"\\ud800",
            b"\r\x00\x7f",
        ),
    ]

    def valid(self, number: int, count: int) -> list[Parts]:
        found = [fault_of(error) for error in drawn(_errors(), count, number)]
        return [
            (msgspec.msgpack.encode(fault), json_text(fault).encode(), plain_text(fault).encode()) for fault in found
        ]

    def read(self, parts: Parts, chance: random.Random) -> None:
        body, told, plain = parts
        how = chance.randrange(4)
        if how < 2:
            fault = codec.decode_fault(body)
        else:
            fault = failure_of((told if how == 2 else plain).decode(errors="replace"))
        error = raised_by(error_of(fault), "tool", "w1")
        _show(error)
        _show(error_of(fault_of(error)))
        status = GRPCError(chance.choice(list(Status)), fault.message)
        _show(error_of_status(status))
        status_of(error)


def _show(error: SnakepitError) -> None:
    assert isinstance(error, SnakepitError)
    text = "".join(traceback.format_exception(error)) + repr(error)
    assert len(text) < _LONGEST_ERROR, f"an error of {len(text)} characters"
    text.encode(errors="strict")
    assert not any(found in text for found in "\x1b\x00\u2028"), "a control character in an error"


@st.composite
def _errors(draw: st.DrawFn, depth: int = 2) -> BaseException:
    """Errors of users' code and ours, with tracebacks, causes, notes and groups."""
    text = draw(st.text(max_size=40))
    ours: list[BaseException] = [
        *(InvalidValue(text, "float", "min"), InvalidArguments(text, "value"), DecodeError(text), EncodeError(text)),
        *(ToolError(text, "KeyError", text), HostToolError(text, "KeyError", text, "tool")),
    ]
    theirs: list[BaseException] = [ValueError(text), KeyError(text), OSError(2, text), KeyboardInterrupt(text)]
    error = draw(st.sampled_from([*ours, *theirs]))
    if depth and draw(st.booleans()):
        inner = draw(st.lists(_errors(depth - 1), min_size=1, max_size=3))
        error = BaseExceptionGroup(text or "group", inner) if draw(st.booleans()) else error
        error.__cause__ = inner[0]
    for note in draw(st.lists(st.text(max_size=20), max_size=2)):
        error.add_note(note)
    try:
        raise error
    except BaseException as raised:  # noqa: ASYNC103 - it is kept, with its traceback
        return raised


TARGETS: Final[dict[str, type[Target]]] = {
    "frames": Frames,
    "lane": LaneFrames,
    "values": Values,
    "tables": Tables,
    "pickles": Pickles,
    "faults": Faults,
}
#: How many inputs each target gets of a million.
SHARES: Final = {
    "frames": 190_000,
    "lane": 190_000,
    "values": 280_000,
    "tables": 100_000,
    "pickles": 100_000,
    "faults": 140_000,
}
