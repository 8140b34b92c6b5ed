"""Shared memory that no crash can leave behind: anonymous files (memfd_create(2)) without a name in any file system.

The owner writes one and tells its process id, descriptor and the file's name; the borrower opens it through
/proc, compares the name, maps it for reading and closes its descriptor. The kernel frees the memory when nobody
holds or maps it any more, however the processes end.
"""

from __future__ import annotations

import functools
import os
import secrets
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, Final

CACHE_BYTES: Final = 64 * 1024 * 1024
_MOST_CACHED: Final = 16
_STEP: Final = 16 * 1024 * 1024
_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MAP_FAILED: Final = 2**64 - 1

Buffer = memoryview | bytes


class Segment:
    """A piece of shared memory of ours. Its memory is used again when nobody needs it, or freed.

    `holds` counts who needs the descriptor, `mapped` the borrowers that have mapped it.
    """

    def __init__(self, owner: Segments, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.capacity = 0
        self.holds = 1
        self.mapped = 0
        self.is_retired = False
        self._owner = owner

    def write(self, buffers: Sequence[Buffer]) -> Iterator[int]:
        """Copy buffers into it, one behind the other, a step at a time. Yields the bytes copied so far.

        Raises `OSError` if there is no memory. Each step releases the GIL while it copies.
        """
        at = 0
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                written = os.pwrite(self.descriptor, view[:_STEP], at)
                view = view[written:]
                at += written
                if written == _STEP:
                    yield at
        self.capacity = max(self.capacity, at)
        yield at

    def hold(self) -> None:
        """One more needs the descriptor."""
        self.holds += 1

    def release(self) -> None:
        """One needs it no more."""
        self.holds -= 1
        self._owner._settle(self)

    def take(self) -> None:
        """A borrower that held it has mapped it."""
        self.mapped += 1
        self.release()

    def unmap(self) -> None:
        """A borrower has unmapped it."""
        self.mapped -= 1
        self._owner._settle(self)

    def retire(self) -> None:
        """Its memory is not used again: it may be mapped by somebody who will not tell."""
        self.is_retired = True
        self._owner._settle(self)


class Segments:
    """Our segments. Those that are free are kept for the next use: fresh memory costs several times as much.

    All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._prefix = f"snakepit-{secrets.token_hex(8)}"
        self._serial = 0
        self._kept: OrderedDict[int, Segment] = OrderedDict()  # by descriptor, those that may be used again
        self._kept_bytes = 0
        self._free: list[Segment] = []
        self._lock = Lock()
        self._is_closed = False

    def get(self, size: int) -> Segment:
        """A segment for that many bytes, held once. Raises `OSError`."""
        with self._lock:
            fitting = [segment for segment in self._free if segment.capacity >= size]
            if fitting:
                segment = min(fitting, key=lambda segment: segment.capacity)
                self._free.remove(segment)
                segment.holds = 1
                return segment
            self._serial += 1
            name = f"{self._prefix}-{self._serial}"
        return Segment(self, os.memfd_create(name, os.MFD_CLOEXEC), name)

    def close(self) -> None:
        """Give all memory back. Segments that are in use follow when they are not."""
        with self._lock:
            self._is_closed = True
            for segment in list(self._kept.values()):
                self._forget(segment)

    def _settle(self, segment: Segment) -> None:
        with self._lock:
            if segment.holds > 0 or segment.descriptor < 0:
                return
            if segment.is_retired or self._is_closed or segment.capacity > CACHE_BYTES:
                self._forget(segment)
            elif segment.mapped == 0:
                self._keep(segment)
                self._free.append(segment)
            else:
                self._keep(segment)

    def _keep(self, segment: Segment) -> None:
        if segment.descriptor not in self._kept:
            self._kept[segment.descriptor] = segment
            self._kept_bytes += segment.capacity
        while self._kept_bytes > CACHE_BYTES or len(self._kept) > _MOST_CACHED:
            oldest = next(iter(self._kept.values()))
            self._forget(oldest)

    def _forget(self, segment: Segment) -> None:
        if self._kept.pop(segment.descriptor, None) is not None:
            self._kept_bytes -= segment.capacity
        if segment in self._free:
            self._free.remove(segment)
        segment.is_retired = True
        if segment.holds == 0 and segment.descriptor >= 0:
            os.close(segment.descriptor)
            segment.descriptor = -1


def map_segment(pid: int, descriptor: int, name: str, size: int, when_unmapped: Callable[[], None]) -> memoryview:
    """Map a segment of another process for reading. Raises `OSError` if that cannot be.

    The memory stays mapped as long as anything refers to the view; then `when_unmapped` is called, from
    whichever thread lets it go.
    """
    opened = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # With other process ids than the owner's, this may be any file.
        found = os.readlink(f"/proc/self/fd/{opened}")
        if found.removeprefix("/memfd:").removesuffix(" (deleted)") != name or os.fstat(opened).st_size < size:
            raise OSError(f"descriptor {descriptor} of process {pid} is {found!r}, not {name!r}")
        return _map(opened, size, when_unmapped)
    finally:
        os.close(opened)


def _map(descriptor: int, size: int, when_unmapped: Callable[[], None]) -> memoryview:
    # mmap.mmap keeps a descriptor open for each mapping up to Python 3.12, and a program may hold a thousand results.
    import ctypes

    libc = _libc()
    address = libc.mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
    if address in (None, _MAP_FAILED):
        raise OSError(ctypes.get_errno(), "mmap")
    area = (ctypes.c_ubyte * size).from_address(address)
    finalizer = weakref.finalize(area, _unmap, libc.munmap, address, size, when_unmapped)
    finalizer.atexit = False
    return memoryview(area).toreadonly().cast("B")


def _unmap(munmap: Callable[[int, int], int], address: int, size: int, when_unmapped: Callable[[], None]) -> None:
    munmap(address, size)
    when_unmapped()


@functools.cache
def _libc() -> Any:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ssize_t,
    )  # fmt: skip
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc
