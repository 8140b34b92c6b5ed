"""Values ready to be sent: a message, and the large buffers that travel beside it.

The receiver gets a value as it was when it was encoded, so its buffers must be copied. `encode_value` copies a small
set of buffers at once. Its caller copies a large set, because the caller knows where to.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from bridge_py.wire import codec
from bridge_py.wire.conversation import MAX_FRAME_BYTES
from bridge_py.wire.errors import EncodeError
from bridge_py.wire.frames import credit_for
from bridge_py.wire.loans import PIECE_BYTES

from .shared_memory import Buffer, Segment, Segments

ATTACH_BYTES: Final = 24 * 1024  # an area up to this size is attached; docs/design.md has the measurement
COPY_STEP: Final = 16 * 1024 * 1024
FRAME_OVERHEAD: Final = 256

logger = logging.getLogger("snakepit.link")


class Sizes(msgspec.Struct, frozen=True):
    """The sizes, in bytes, that both ends of a link use."""

    max_frame: int = MAX_FRAME_BYTES
    max_area: int = 1 << 33  # all large buffers of one value together
    beside: int = codec.BESIDE_BYTES  # a buffer of this size or more is a large one
    shared: int = 1 << 31  # shared memory that the other side may hold
    compress_from: int | None = None  # an area of this size or more is compressed, if it travels over the link


class BufferSet:
    """The large buffers of a value that is sent. Until `copy` has run they are the sender's own, which may change."""

    __slots__ = ("_is_copied", "buffers", "segment", "size")

    def __init__(self, buffers: Sequence[Buffer], size: int) -> None:
        self.buffers = buffers
        self.size = size
        self.segment: Segment | None = None
        self._is_copied = False

    @property
    def is_large(self) -> bool:
        """Whether it is lent rather than attached."""
        return self.size > ATTACH_BYTES

    @property
    def attached_size(self) -> int:
        """Bytes that it adds to its frame."""
        return 0 if self.is_large else self.size

    def copy(self, segments: Segments | None) -> Generator[int, None, None]:
        """Copy the buffers, a step at a time; yields the bytes copied so far. Then the sender's buffers may change.

        The copy is in shared memory. It is in memory of this process if `segments` is None or has no memory to give.
        """
        if segments is not None:
            yield from self._share(segments)
        if self.segment is None:
            yield from self._keep()
        self._is_copied = True

    def _share(self, segments: Segments) -> Generator[int, None, None]:
        segment = None
        try:
            segment = segments.get(self.size)
            yield from segment.write(self.buffers)
            self.segment, segment = segment, None
            self._let_go()
        except OSError as error:
            logger.debug("%d bytes cannot be shared, and will be sent over the link: %s", self.size, error)
        finally:
            if segment is not None:
                segment.retire()
                segment.release()

    def _keep(self) -> Generator[int, None, None]:
        if all(type(buffer) is bytes for buffer in self.buffers):
            return  # nobody can change them
        area, at = memoryview(bytearray(self.size)), 0
        for buffer in self.buffers:
            # The cast makes the items unsigned bytes: those of Arrow's buffers are signed.
            with memoryview(buffer).cast("B") as view:
                for start in range(0, len(view), COPY_STEP):
                    step = min(COPY_STEP, len(view) - start)
                    area[at : at + step] = view[start : start + step]
                    at += step
                    if step == COPY_STEP:
                        yield at
        self._let_go()
        self.buffers = (area.toreadonly(),)

    def joined(self) -> bytes:
        """Join all buffers. Only for a set that is not in shared memory."""
        return b"".join(self.buffers)

    def pieces(self) -> Iterator[bytes]:
        """Iterate over the bytes, in pieces of equal size except the last. A loan must hold shared memory meanwhile."""
        if self.segment is not None:
            return _pieces_of_segment(self.segment, self.size)
        return _pieces_of(self.buffers)

    def release(self) -> None:
        """Let go of the buffers for the code that made the set. Loans may still hold the shared memory."""
        if self.segment is not None:
            self.segment.release()
            self.segment = None
        if not self._is_copied:
            self._let_go()
        self.buffers = ()

    def _let_go(self) -> None:
        codec.let_go(self.buffers)
        self.buffers = ()


def _pieces_of(buffers: Sequence[Buffer]) -> Iterator[bytes]:
    piece = bytearray()
    for buffer in buffers:
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


def _pieces_of_segment(segment: Segment, size: int) -> Iterator[bytes]:
    for at in range(0, size, PIECE_BYTES):
        yield os.pread(segment.descriptor, min(PIECE_BYTES, size - at), at)


class EncodedValue(msgspec.Struct, frozen=True, gc=False):
    """A value that is ready to be sent."""

    body: bytes
    buffers: BufferSet | None  # the large ones, if it has any


def encode_value(value: Any, what: str, sizes: Sizes, overhead: int = 0) -> EncodedValue:
    """Encode a value. Raises `EncodeError`, which calls the value `what`, if it cannot be sent or is too large.

    `overhead` is how many other bytes its frame must hold. The caller must copy a large set of buffers: until then
    they are the value's own buffers.
    """
    encoded = codec.encode(value, what, beside=sizes.beside)
    size = len(encoded.body) + overhead
    if encoded.size:
        return EncodedValue(encoded.body, _buffers_of(encoded, what, size, sizes))
    if size > sizes.max_frame - FRAME_OVERHEAD:
        raise _too_large(what, size, 0, sizes)
    return EncodedValue(encoded.body, None)


def _buffers_of(encoded: codec.Encoded, what: str, size: int, sizes: Sizes) -> BufferSet:
    buffers = BufferSet(encoded.buffers, encoded.size)
    size += buffers.attached_size
    if size > sizes.max_frame - FRAME_OVERHEAD or encoded.size > sizes.max_area:
        buffers.release()
        raise _too_large(what, size, encoded.size, sizes)
    if not buffers.is_large:
        copy_at_once(buffers, None)
    return buffers


def copy_at_once(buffers: BufferSet, segments: Segments | None) -> None:
    """Run all steps of `BufferSet.copy`."""
    try:
        for _ in buffers.copy(segments):
            pass
    except BaseException:
        buffers.release()
        raise


def cost_of(encoded: object) -> int:
    """The credit that a value costs as a chunk. A value that no `Packer` has encoded costs 1."""
    if not isinstance(encoded, EncodedValue):
        return 1
    size = len(encoded.body)
    return credit_for(size if encoded.buffers is None else size + encoded.buffers.size)


def drop(encoded: object) -> None:
    """Release the buffers of a value that will not be sent. A `Packer`, or a similar function, has encoded it."""
    if isinstance(encoded, EncodedValue) and encoded.buffers is not None:
        encoded.buffers.release()


def _too_large(what: str, in_frame: int, beside: int, sizes: Sizes) -> EncodeError:
    room = sizes.max_frame - FRAME_OVERHEAD
    if in_frame > room:
        return EncodeError(f"{what}: {in_frame} bytes; a frame takes {room} (max_frame_bytes)")
    return EncodeError(
        f"{what}: {beside} bytes in arrays and the like; {sizes.max_area} may be sent (max_buffer_bytes)"
    )


class HasRoom(Protocol):
    """A peer to which shared memory may be lent."""

    @property
    def room(self) -> int:
        """Bytes of shared memory that the peer may still get."""
        ...


class Packer:
    """Encodes the values that a worker sends. Copies large buffers: to shared memory, if the host may hold more."""

    def __init__(self, sizes: Sizes, host: HasRoom) -> None:
        self._sizes = sizes
        self._segments = Segments()
        self._host = host

    def __call__(self, value: Any, what: str, overhead: int = 0) -> EncodedValue:
        """Encode a value, and copy its large buffers. Raises `EncodeError`, which calls the value `what`."""
        encoded = encode_value(value, what, self._sizes, overhead)
        buffers = encoded.buffers
        if buffers is not None and buffers.is_large:
            copy_at_once(buffers, self._segments if buffers.size <= self._host.room else None)
        return encoded
