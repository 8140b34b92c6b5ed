"""Adapters for workers in any language that speak frames on stdin and stdout, and the encodings of these frames."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from bridge_py.wire.errors import DecodeError, EncodeError, UsageError
from bridge_py.wire.keys import SMALL, check_maps
from bridge_py.wire.registry import parts_of
from snakepit_trio._util.validation import is_text, refuse

from .adapters import Adapter, missing_program, to_args, to_script

_RUNNERS: Final = {".pl": "perl", ".js": "node", ".mjs": "node", ".cjs": "node", ".sh": "bash", ".rb": "ruby"}


def _to_script(script: str | os.PathLike[str]) -> str:
    return "" if script == "" else to_script(script)


def _to_executable(executable: str | os.PathLike[str]) -> str:
    if not isinstance(executable, (str, os.PathLike)) or not is_text(path := os.fspath(executable)):
        raise refuse("executable", executable, "give the path or the name of a program")
    return path


@attrs.frozen
class StdioJson(Adapter):
    """A program in any language that speaks length-prefixed JSON on its stdin and stdout (docs/stdio.md).

    `script` is its path, and `args` are its arguments. `executable` runs the script. By default that is the pool's
    interpreter for `.py`, and perl, node, bash or ruby for their scripts; any other script runs itself. Without a
    script, `executable` is the program.
    """

    protocol = "stdio"

    script: str = attrs.field(converter=_to_script)
    args: Sequence[str] = attrs.field(default=(), converter=to_args)
    executable: str = attrs.field(default="", converter=_to_executable)

    def __attrs_post_init__(self) -> None:
        if not self.script and not self.executable:
            raise UsageError(f"{type(self).__name__} names no program: give a script, or an executable")

    def executable_path(self, python: str) -> str:
        """The program that runs the script; empty if the script runs itself."""
        suffix = Path(self.script).suffix
        return self.executable or (python if suffix == ".py" else _RUNNERS.get(suffix, ""))

    def script_path(self) -> str:
        """The script; empty if there is none."""
        return self.script

    def script_args(self) -> list[str]:
        """The arguments of the program."""
        return list(self.args)

    def unavailable(self, python: str) -> str | None:
        return missing_program(self.executable_path(python), self.script)

    def encode(self, frame: dict[str, Any]) -> bytes:
        """The bytes of a frame. Raises `EncodeError`, which says where in the frame the bad value is."""
        return _JSON.encode(frame)

    def decode(self, data: bytes) -> dict[str, Any]:
        """The frame that bytes encode. Raises `DecodeError`."""
        return _JSON.decode(data)


@attrs.frozen
class StdioMsgpack(StdioJson):
    """A program in any language that speaks length-prefixed MessagePack on its stdin and stdout (docs/stdio.md).

    Unlike JSON, MessagePack holds bytes, and it is quicker for large values. The fields are those of `StdioJson`.
    """

    def encode(self, frame: dict[str, Any]) -> bytes:
        return _MSGPACK.encode(frame)

    def decode(self, data: bytes) -> dict[str, Any]:
        return _MSGPACK.decode(data)


class _Form:
    """An encoding of plain values: the types that it has, as values and as keys, and how to write and read it."""

    def __init__(
        self,
        name: str,
        leaves: Iterable[type],
        keys: Iterable[type],
        write: Callable[[Any], bytes],
        read: Callable[[bytes], Any],
    ) -> None:
        self._name = name
        self._leaves = frozenset(leaves)
        self._keys = frozenset(keys)
        self._write = write
        self._read = read

    def encode(self, frame: dict[str, Any]) -> bytes:
        try:
            return self._encode(frame)
        except (ValueError, TypeError, OverflowError, RecursionError):
            path, why = self._find(frame, "")
            raise EncodeError(f"{path.removeprefix('.')}: {why}") from None

    def decode(self, data: bytes) -> dict[str, Any]:
        try:
            frame = self._read(data)
        except Exception as error:
            raise DecodeError(f"a frame of {len(data)} bytes is no {self._name}: {error}") from None
        if not isinstance(frame, dict):
            raise DecodeError(f"a frame is no map, but a {type(frame).__name__}")
        return frame

    def _encode(self, value: Any) -> bytes:
        if not self._has_only_ours(value):
            raise TypeError(f"a value of type {type(value).__name__} cannot be sent as {self._name}")
        return self._write(value)

    def _has_only_ours(self, value: Any) -> bool:
        if type(value) is dict:
            return self._keys.issuperset(map(type, value)) and self._have_only_ours(value.values())
        return type(value) in self._leaves or (type(value) is list and self._have_only_ours(value))

    def _have_only_ours(self, values: Iterable[Any]) -> bool:
        # A fast path: long lists of leaves take the most time.
        return self._leaves.issuperset(map(type, values)) or all(map(self._has_only_ours, values))

    def _find(self, value: Any, path: str) -> tuple[str, str]:
        """The path of the bad part in a value that cannot be sent, and what is wrong with that part."""
        if type(value) in (dict, list):
            for label, part in parts_of(value):
                if self._complaint(part) is not None:
                    return self._find(part, path + label)
        if type(value) is dict:
            for key in value:
                if type(key) not in self._keys:
                    return path, f"{key!r} cannot be a key in {self._name}"
        return path, self._complaint(value) or "it cannot be sent"

    def _complaint(self, value: Any) -> str | None:
        try:
            self._encode(value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            return str(error)
        return None


_LEAVES: Final = (type(None), bool, int, float, str)
_to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not of JSON")


def _write_json(value: Any) -> bytes:
    return _to_json(value).encode()


def _read_json(data: bytes) -> Any:
    # Not msgspec's decoder: it refuses lone surrogates, and JavaScript writes them.
    return json.loads(data.decode(), parse_constant=_refuse_constant)


def _read_msgpack(data: bytes) -> Any:
    if len(data) > SMALL:
        check_maps(data)
    return msgspec.msgpack.decode(data)


_JSON: Final = _Form("JSON", _LEAVES, {str}, _write_json, _read_json)
_BINARY: Final = (*_LEAVES, bytes, bytearray)
_MSGPACK: Final = _Form("MessagePack", _BINARY, {*_LEAVES, bytes}, msgspec.msgpack.Encoder().encode, _read_msgpack)
