"""What each side of a link says about itself in its hello, and how the other side checks it, field by field.

A hello is read before its sender has shown that it knows the secret. So only plain values of the right types are
decoded, and only up to a size. The tools are read after the secret was checked.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from .amounts import thousandths
from .errors import RemoteProtocolError, UsageError
from .readable import readable
from .specs import LONGEST_WAIT, MOST_CALLS, ParameterSpec, ToolSpec

PROTOCOL_VERSION: Final = 1
MOST_TOOLS: Final = 10_000
MOST_PARAMETERS: Final = 1_000  # of one tool
_MOST_BYTES: Final = 16 * 1024 * 1024
_LONGEST_NAME: Final = 1_000
_LONGEST_TEXT: Final = 100_000
_LONGEST_PROBLEM: Final = 500
_WRONG: Final = "its hello describes its tools wrongly"

_Pid = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class HostHello(msgspec.Struct, kw_only=True):
    """The host's hello. `pid` is its process id; `zstd` says whether it can read compressed pieces."""

    protocol: int
    secret: str = ""
    pid: _Pid = 0
    zstd: bool = False
    lane: bool = False


class WorkerHello(HostHello, kw_only=True):
    """The worker's hello. `python` is its interpreter's version; `tools` is a list of `ToolSpec`, still encoded."""

    python: Annotated[str, msgspec.Meta(max_length=100)] = ""
    tools: msgspec.Raw = msgspec.Raw(b"\x90")


Hello = TypeVar("Hello", bound=HostHello)


def read_hello(body: bytes, kind: type[Hello], secret: str) -> Hello:
    """Read a peer's hello. Raises `RemoteProtocolError` unless the peer knows the secret and speaks our protocol."""
    if len(body) > _MOST_BYTES:
        raise RemoteProtocolError(f"its hello has {len(body)} bytes; it may have {_MOST_BYTES}")
    hello = _decoded(body, kind, "its hello is broken")
    if not hmac.compare_digest(hello.secret.encode(), secret.encode()):
        raise RemoteProtocolError("its hello has the wrong secret")
    if hello.protocol != PROTOCOL_VERSION:
        raise RemoteProtocolError(f"it speaks version {hello.protocol} of the link, we speak {PROTOCOL_VERSION}")
    return hello


def tools_of(hello: WorkerHello) -> list[ToolSpec]:
    """The tools in a worker's hello, checked by `check_tools`. Raises `RemoteProtocolError`."""
    tools = _decoded(bytes(hello.tools), list[ToolSpec], _WRONG)
    return check_tools(tools)


def check_tools(tools: Sequence[ToolSpec]) -> list[ToolSpec]:
    """Check the tools that a worker says it has, and make their descriptions readable.

    Raises `RemoteProtocolError` for more than 10,000 tools, two tools of one name, a name that is empty, not printable
    or longer than 1,000 characters, more than 1,000 parameters, a timeout that is no number from 0 on, a limit below
    1, and resources that no tool can need.
    """
    if len(tools) > MOST_TOOLS:
        raise _wrong(f"{len(tools)} tools; a worker may have {MOST_TOOLS}")
    _check_names(tool.name for tool in tools)
    return [_checked(tool) for tool in tools]


class Announced:
    """The tools that a peer without a hello has told of. All together they are bounded as those of a hello are."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}  # by name

    def add(self, tools: Sequence[ToolSpec]) -> list[ToolSpec]:
        """Check more tools as `check_tools` does. A tool takes the place of an earlier one of its name.

        Raises `UsageError`, also for more than 10,000 tools, or 16 MiB of them, with the earlier ones.
        """
        try:
            found = check_tools(tools)
        except RemoteProtocolError as error:
            raise UsageError(str(error).replace(_WRONG, "these tools are described wrongly", 1)) from None
        sizes = self._sizes | {tool.name: len(msgspec.msgpack.encode(tool)) for tool in found}
        if len(sizes) > MOST_TOOLS or sum(sizes.values()) > _MOST_BYTES:
            had = f"{len(sizes)} tools of {sum(sizes.values())} bytes"
            raise UsageError(
                f"a worker may have {MOST_TOOLS} tools of {_MOST_BYTES} bytes together; this one has {had}"
            )
        self._sizes = sizes
        return found


def _checked(tool: ToolSpec) -> ToolSpec:
    if len(tool.parameters) > MOST_PARAMETERS:
        raise _wrong(f"tool {tool.name!r:.100} has {len(tool.parameters)} parameters; it may have {MOST_PARAMETERS}")
    if tool.timeout is not None and not tool.timeout >= 0:
        raise _wrong(f"tool {tool.name!r:.100} has the timeout {tool.timeout}")
    if tool.limit is not None and tool.limit < 1:
        raise _wrong(f"tool {tool.name!r:.100} has the limit {tool.limit}")
    if (tool.batch is not None and not 1 <= tool.batch <= MOST_CALLS) or not 0 <= tool.wait <= LONGEST_WAIT:
        raise _wrong(f"tool {tool.name!r:.100} has batch={tool.batch} and wait={tool.wait}")
    try:
        thousandths(tool.resources)
    except ValueError as error:
        raise _wrong(f"tool {tool.name!r:.100} has resources, of which {error}") from None
    _check_names((parameter.name for parameter in tool.parameters), tool)
    if _is_plain([tool.description, *(text for each in tool.parameters for text in _texts(each))]):
        return tool
    parameters = [_readable_parameter(parameter) for parameter in tool.parameters]
    description = readable(tool.description, _LONGEST_TEXT)
    return msgspec.structs.replace(tool, description=description, parameters=parameters)


def _is_plain(texts: Sequence[str]) -> bool:
    # One test for them all: most tools have many short texts.
    together = "".join(texts)
    return len(together) <= _LONGEST_TEXT and together.isprintable()


def _texts(parameter: ParameterSpec) -> tuple[str, ...]:
    return parameter.type, parameter.description, parameter.default


def _readable_parameter(parameter: ParameterSpec) -> ParameterSpec:
    kind, description, default = (readable(text, _LONGEST_TEXT) for text in _texts(parameter))
    return msgspec.structs.replace(parameter, type=kind, description=description, default=default)


def _check_names(names: Iterable[str], tool: ToolSpec | None = None) -> None:
    seen = set[str]()
    for name in names:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise _misnamed(name, tool, f": give it 1 to {_LONGEST_NAME} printable characters")
        if name in seen:
            raise _misnamed(name, tool, ", and so has another one")
        seen.add(name)


def _misnamed(name: str, tool: ToolSpec | None, problem: str) -> RemoteProtocolError:
    what = "a tool" if tool is None else f"a parameter of tool {tool.name!r:.100}"
    return _wrong(f"{what} has the name {name!r:.100}{problem}")


def _wrong(problem: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{_WRONG}: {problem}")


_T = TypeVar("_T")


def _decoded(body: bytes, kind: type[_T], problem: str) -> _T:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except Exception as error:  # msgspec's own, and those of text that is no UTF-8 or nested too deeply
        raise RemoteProtocolError(readable(f"{problem}: {error}", _LONGEST_PROBLEM)) from None
