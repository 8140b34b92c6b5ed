"""Shared memory that no crash can leave behind: anonymous files (memfd_create(2)) without a name in any file system.

The owner writes such a file, fixes its size by seals (fcntl(2), F_ADD_SEALS), and tells the borrower its own process
id, the descriptor and the file's name. The borrower looks at the file through /proc. If the name, the kind of file and
the seals are right, it maps the file for reading, and closes its descriptor. The kernel frees the memory when no
process holds or maps it any more, however the processes end.

Neither side trusts the other. Memory that could shrink would kill its reader by SIGBUS, so the seals are demanded.
What the owner writes to sealed memory can still change under a reader's eyes: a reader that checks the content of a
buffer, and relies on it afterwards, must copy the buffer before the check.
"""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import secrets
import stat
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, Final

from bridge_py.wire.errors import RemoteProtocolError

CACHE_BYTES: Final = 64 * 1024 * 1024
_MOST_CACHED: Final = 16
_STEP: Final = 16 * 1024 * 1024
_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MAP_FAILED: Final = 2**64 - 1
_BLOCK: Final = 512  # bytes; the unit of st_blocks

Buffer = memoryview | bytes


class Segment:
    """A piece of shared memory of ours. When nobody needs its memory any more, it is used again or freed.

    `holds` counts the users that need the descriptor, `mapped` the borrowers that have mapped the memory.
    """

    def __init__(self, owner: Segments, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.capacity = 0
        self.holds = 1
        self.mapped = 0
        self.is_retired = False
        self._owner = owner
        self._mapping: mmap.mmap | None = None

    def write(self, buffers: Sequence[Buffer]) -> Iterator[int]:
        """Copy buffers into the segment, one behind the other. Yields, between two steps, the bytes copied so far.

        The first write decides the segment's size for ever. Raises `OSError` if there is no memory. Each step releases
        the GIL while it copies.
        """
        at = 0
        copy = self._copy_over if self.capacity and "numpy" in sys.modules else self._copy_first
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                written = copy(view[:_STEP], at)
                view = view[written:]
                at += written
                if written == _STEP:
                    yield at
        if not self.capacity:
            fix_size(self.descriptor)
            self.capacity = at

    def _copy_first(self, view: memoryview, at: int) -> int:
        # The kernel finds memory twice as fast for a write as for the page faults of a mapping.
        return os.pwrite(self.descriptor, view, at)

    def _copy_over(self, view: memoryview, at: int) -> int:
        # A copy into existing memory is three times as fast. Of Python's ways to copy, only numpy's releases the GIL.
        import numpy as np

        if self._mapping is None:
            self._mapping = mmap.mmap(self.descriptor, self.capacity)
        target = np.frombuffer(self._mapping, np.uint8, len(view), at)
        np.copyto(target, np.frombuffer(view, np.uint8))
        return len(view)

    def hold(self) -> None:
        """Count one more user of the descriptor."""
        self.holds += 1

    def release(self) -> None:
        """Count one user less of the descriptor."""
        self.holds -= 1
        self._owner._settle(self)

    def take(self) -> None:
        """Note that a borrower has mapped the memory, and needs the descriptor no more."""
        self.mapped += 1
        self.release()

    def unmap(self) -> None:
        """Note that a borrower has unmapped the memory."""
        self.mapped -= 1
        self._owner._settle(self)

    def close(self) -> None:
        """Close the descriptor and our own mapping."""
        os.close(self.descriptor)
        self.descriptor = -1
        if self._mapping is not None:
            self._mapping.close()

    def retire(self) -> None:
        """Never use the memory again. A process may have it mapped, and will not tell us when it unmaps it."""
        self.is_retired = True
        self._owner._settle(self)


class Segments:
    """Our segments. Free ones are kept for the next use, because fresh memory costs several times as much.

    All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._prefix = f"snakepit-{secrets.token_hex(8)}"
        self._serial = 0
        self._kept: OrderedDict[int, Segment] = OrderedDict()  # by descriptor: segments that may be used again
        self._kept_bytes = 0
        self._free: list[Segment] = []
        self._lock = Lock()
        self._is_closed = False

    def get(self, size: int) -> Segment:
        """Return a segment for `size` bytes, whose `holds` is 1. Raises `OSError`."""
        with self._lock:
            fitting = [segment for segment in self._free if segment.capacity >= size]
            if fitting:
                segment = min(fitting, key=lambda segment: segment.capacity)
                self._free.remove(segment)
                segment.holds = 1
                return segment
            self._serial += 1
            name = f"{self._prefix}-{self._serial}"
        return Segment(self, make_memory(name), name)

    def close(self) -> None:
        """Free all memory. A segment that is in use is freed at the end of its use."""
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
            segment.close()


class Mappings:
    """Segments of one other process that are mapped here. The latest ones stay mapped for their next use."""

    def __init__(self) -> None:
        self._regions: OrderedDict[str, _Region] = OrderedDict()  # by the segment's name
        self._bytes = 0

    def open(self, pid: int, descriptor: int, name: str, size: int, when_returned: Callable[[], None]) -> memoryview:
        """Map a segment of a process, and return a read-only view of it.

        When nothing refers to the view any more, the thread that let go of it last calls `when_returned`. Raises
        `OSError` if the segment cannot be opened, or is no sealed memory of that name and size; and
        `RemoteProtocolError` if it is mapped already and is smaller than `size`.
        """
        import ctypes

        region = self._regions.get(name)
        if region is None:
            region = _open_region(pid, descriptor, name, size)
            self._keep(name, region)
        if size > region.size:
            raise RemoteProtocolError(f"a loan of {size} bytes in shared memory of {region.size} bytes")
        self._regions.move_to_end(name)
        area = (ctypes.c_ubyte * size).from_address(region.address)
        # The finalizer holds the region, so that the region outlives this table.
        weakref.finalize(area, _let_go, region, when_returned).atexit = False
        return memoryview(area).toreadonly().cast("B")

    def close(self) -> None:
        """Unmap all segments that nothing refers to; each other one is unmapped when nothing refers to it any more."""
        self._regions.clear()

    def _keep(self, name: str, region: _Region) -> None:
        self._regions[name] = region
        self._bytes += region.size
        while len(self._regions) > 1 and (self._bytes > CACHE_BYTES or len(self._regions) > _MOST_CACHED):
            _, oldest = self._regions.popitem(last=False)
            self._bytes -= oldest.size


class _Region:
    """A mapping of a file's memory, unmapped when nothing refers to this object any more."""

    # Not mmap.mmap: up to Python 3.12 it keeps a descriptor for each mapping. A program may hold a thousand results.

    def __init__(self, descriptor: int, size: int) -> None:
        import ctypes

        libc = _libc()
        address = libc.mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
        if address in (None, _MAP_FAILED):
            raise OSError(ctypes.get_errno(), "mmap")
        self.address: int = address
        self.size = size
        weakref.finalize(self, libc.munmap, address, size).atexit = False


def make_memory(name: str) -> int:
    """Make an empty anonymous file whose size can be fixed; returns its descriptor. Raises `OSError`."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def fix_size(descriptor: int) -> None:
    """Fix the size of memory that `make_memory` made: no process can change it, or add seals. Raises `OSError`."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _size_seals() | fcntl.F_SEAL_SEAL)


def _size_seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def _open_region(pid: int, descriptor: int, name: str, size: int) -> _Region:
    # The owner chooses what its descriptor leads to, and may change that at any time. To open a FIFO or a device has
    # effects, and this process may be allowed to open more than the owner. O_PATH only looks, and fixes what is opened.
    found = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_PATH | os.O_CLOEXEC)
    try:
        capacity = _capacity_of(found, f"descriptor {descriptor} of process {pid}", name, size)
        opened = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        if fcntl.fcntl(opened, fcntl.F_GET_SEALS) & _size_seals() != _size_seals():
            raise OSError(f"the memory {name!r:.100} is not sealed: its owner could shrink it")
        return _Region(opened, capacity)
    finally:
        os.close(opened)


def _capacity_of(found: int, place: str, name: str, size: int) -> int:
    """The size of the file at a descriptor, if it is anonymous memory of that name and size. Raises `OSError`."""
    # If this process sees other process ids than the owner does, this may be any file. The owner chooses the name, and
    # a file in a file system of its own may have such a name too: the device tells these apart.
    path, about = os.readlink(f"/proc/self/fd/{found}"), os.fstat(found)
    is_memory = stat.S_ISREG(about.st_mode) and about.st_dev == _device_of_memory()
    if not is_memory or path != f"/memfd:{name} (deleted)" or about.st_size < size:
        raise OSError(f"{place} is {path!r} of {about.st_size} bytes, not {name!r:.100} of {size} bytes")
    if about.st_blocks * _BLOCK < about.st_size:
        # Memory for holes would be found, and paid for, by the process that reads them.
        raise OSError(f"the memory {name!r:.100} has holes")
    return about.st_size


@functools.cache
def _device_of_memory() -> int:
    """The device that the kernel shows for all anonymous files."""
    descriptor = make_memory("snakepit")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def _let_go(_region: _Region, when_returned: Callable[[], None]) -> None:
    when_returned()


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
