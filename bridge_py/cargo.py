"""Values ready to be sent: a message, and the large buffers that travel beside it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from .shared import Buffer, Segment, Segments
from .wire import codec
from .wire.conversation import MAX_FRAME_BYTES
from .wire.errors import EncodeError
from .wire.loans import PIECE_BYTES

ATTACH_BYTES: Final = 24 * 1024  # up to here an area is attached; docs/design.md has the measurement
FRAME_OVERHEAD: Final = 256

logger = logging.getLogger("snakepit.link")


class Sizes(msgspec.Struct, frozen=True):
    """The sizes that both ends of a link go by, in bytes."""

    max_frame: int = MAX_FRAME_BYTES
    max_area: int = 1 << 33  # of the large buffers of one value
    beside: int = codec.BESIDE_BYTES  # a buffer from here on is a large one
    shared: int = 1 << 31  # that the other side may hold in shared memory
    compress_from: int | None = None  # an area from here on is compressed, if it travels over the link


class Cargo:
    """The large buffers of a value that is sent, and their copy in shared memory, if there is one."""

    __slots__ = ("buffers", "segment", "size")

    def __init__(self, buffers: Sequence[Buffer], size: int) -> None:
        self.buffers = buffers
        self.size = size
        self.segment: Segment | None = None

    @property
    def is_large(self) -> bool:
        """Whether it is lent rather than attached."""
        return self.size > ATTACH_BYTES

    @property
    def attached_size(self) -> int:
        """Bytes that it adds to its frame."""
        return 0 if self.is_large else self.size

    def share(self, segments: Segments) -> Generator[int, None, None]:
        """Copy it into shared memory, a step at a time. If there is none left, it stays where it is."""
        segment = None
        try:
            segment = segments.get(self.size)
            yield from segment.write(self.buffers)
            self.segment, segment = segment, None
        except OSError as error:
            logger.debug("%d bytes cannot be shared, and will be sent over the link: %s", self.size, error)
        finally:
            if segment is not None:
                segment.retire()
                segment.release()

    def release(self) -> None:
        """Whoever made it needs its shared memory no more; loans may still."""
        if self.segment is not None:
            self.segment.release()
            self.segment = None

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, in pieces of equal size but for the last."""
        piece = bytearray()
        for buffer in self.buffers:
            view = memoryview(buffer)
            while view:
                room = PIECE_BYTES - len(piece)
                piece += view[:room]
                view = view[room:]
                if len(piece) == PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        if piece:
            yield bytes(piece)


Load = tuple[bytes, Cargo | None]


def load_of(value: Any, what: str, sizes: Sizes, overhead: int = 0) -> Load:
    """Encode a value. `what` names it in the message of the `EncodeError` if it cannot be sent, or is too large.

    `overhead` is what else its frame must hold, in bytes.
    """
    packed = codec.encode(value, what, beside=sizes.beside)
    cargo = Cargo(packed.buffers, packed.size) if packed.size else None
    size = len(packed.body) + overhead + (0 if cargo is None else cargo.attached_size)
    if size > sizes.max_frame - FRAME_OVERHEAD:
        raise EncodeError(f"{what}: {size} bytes; a frame takes {sizes.max_frame - FRAME_OVERHEAD} (max_frame_bytes)")
    if packed.size > sizes.max_area:
        raise EncodeError(
            f"{what}: {packed.size} bytes in arrays and the like; {sizes.max_area} may be sent (max_buffer_bytes)"
        )
    return packed.body, cargo


class HasRoom(Protocol):
    """Who may be sent shared memory."""

    @property
    def room(self) -> int:
        """Bytes."""


class Packer:
    """Makes loads of what tools return: with large buffers in shared memory, if the host may hold that much more."""

    def __init__(self, sizes: Sizes, host: HasRoom) -> None:
        self._sizes = sizes
        self._segments = Segments()
        self._host = host

    def __call__(self, value: Any, what: str) -> Load:
        """See `load_of`."""
        load = load_of(value, what, self._sizes)
        cargo = load[1]
        if cargo is not None and cargo.is_large and cargo.size <= self._host.room:
            for _ in cargo.share(self._segments):
                pass
        return load
