"""zstd (RFC 8878) for pieces of areas that travel over a link, where the zstandard package is installed."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, Final

from bridge_py.wire.errors import RemoteProtocolError

_LEVEL: Final = 1  # the fastest level, because the link's thread compresses


@functools.cache
def is_available() -> bool:
    """Whether this interpreter can compress and decompress."""
    return importlib.util.find_spec("zstandard") is not None


def compress(piece: bytes) -> bytes | None:
    """Compress a piece; returns None if that does not make it shorter."""
    found: bytes = _compressor().compress(piece)
    return found if len(found) < len(piece) else None


def decompress(data: bytes, size: int) -> bytes:
    """Decompress a piece that has `size` bytes. Raises `RemoteProtocolError` if the data are no such piece."""
    import zstandard

    try:
        # The peer may lie about the size in the zstd frame. The check keeps the memory to the size that was announced.
        parameters = zstandard.get_frame_parameters(data)
        found: bytes = _decompressor().decompress(data) if parameters.content_size == size else b""
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a compressed piece is broken: {error}") from None
    if len(found) != size:
        raise RemoteProtocolError(f"a compressed piece of {parameters.content_size} bytes that should have {size}")
    return found


@functools.cache
def _compressor() -> Any:
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL)


@functools.cache
def _decompressor() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor()
