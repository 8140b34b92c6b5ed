"""The JSON of requests and answers. Large values are converted in a thread: the server goes on meanwhile."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from snakepit_trio._util.threads import read_in_thread

from .json_values import LARGE_TEXT, arguments_of, is_small, to_json
from .problems import Problem
from .schemas import ToolSchema

_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")


async def read_arguments(schema: ToolSchema, body: bytes) -> dict[str, Any]:
    """Read the arguments of a tool; an empty body stands for none.

    Raises `InvalidArguments`, and a `Problem` with 400, which says where the JSON is wrong. If cancelled, a thread may
    go on for a moment.
    """
    if len(body) > LARGE_TEXT:
        return await read_in_thread(_read, schema, body)
    return _read(schema, body)


def _read(schema: ToolSchema, body: bytes) -> dict[str, Any]:
    return arguments_of(schema, decode(body or b"{}"))


async def text_of(value: Any) -> str:
    """A result as JSON. Raises `EncodeError`. If cancelled, a thread may go on for a moment."""
    encoded = to_json(value) if is_small(value) else await read_in_thread(to_json, value)
    return encoded.decode()


def decode(text: bytes) -> Any:
    """Decode JSON. Raises a `Problem` with 400."""
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8: {error.reason}") from None
    except msgspec.DecodeError as error:
        found = _BYTE.search(str(error))
        at = int(found[1]) if found else len(text)
        raise _malformed(str(error), **_position(text, at)) from None


def _position(text: bytes, at: int) -> dict[str, Any]:
    before = text[:at]
    line = before.count(b"\n") + 1
    return {"position": {"byte": at, "line": line, "column": at - before.rfind(b"\n")}}


def _malformed(why: str, **more: Any) -> Problem:
    return Problem(400, "bad-json", "The body is not valid JSON", why, **more)
