"""The areas of one link: this side lends the areas of the values that it sends, and gets those that it receives.

An area holds the large buffers of a value, one behind the other. A small area is attached to its frame. A large area
is lent: in shared memory if the other side can open that, else piece by piece.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections import deque
from collections.abc import Callable
from typing import Final

from bridge_py.wire.conversation import NO_AREA, BufferRef, Conversation
from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.loans import PIECE_BYTES

from .buffer_sets import BufferSet, Sizes
from .compression import compress, decompress
from .shared_memory import Mappings

_WINDOW: Final = 8  # pieces that may be under way

logger = logging.getLogger("snakepit.link")


class _Lent:
    """Buffers on loan. The loan holds their shared memory, even if the other side fetches pieces and maps nothing."""

    def __init__(self, buffers: BufferSet, *, is_shared: bool) -> None:
        self.size = buffers.size
        self.segment = buffers.segment
        self.is_shared = is_shared
        self.is_taken = False
        self.pieces = buffers.pieces()
        if self.segment is not None:
            self.segment.hold()

    def let_go(self) -> None:
        """Release the shared memory when the loan is over."""
        if self.segment is not None:
            if self.is_taken:
                self.segment.unmap()
            else:
                self.segment.release()


class Transfers:
    """Lends and borrows areas on one link. Only the thread of that link may use it.

    It calls `deliver` with each frame that `receive` took, when the frame's area is in its `attached`. The frames of a
    call keep their order.
    """

    def __init__(self, conversation: Conversation, sizes: Sizes, deliver: Callable[[Frame], None]) -> None:
        self.peer_pid = 0
        self.peer_decompresses = False
        #: Whether the peer has asked for an area piece by piece.
        self.peer_fetches = False
        self._loans = conversation.loans
        self._limit = sizes.shared
        self._compress_from = sizes.compress_from
        self._deliver = deliver
        self._lent: dict[int, _Lent] = {}
        self._shared_bytes = 0
        self._max_area = sizes.max_area
        self._arriving: dict[int, tuple[Frame, mmap.mmap | None]] = {}  # by loan; without memory until it is fetched
        self._unfetched: deque[int] = deque()  # loans that wait until others have come
        self._fetched_bytes = 0  # of all areas that are being fetched
        #: By call: frames that wait for an area, their own or that of an earlier frame. A frame without a loan need not
        #: go through `receive`, unless its call is in here.
        self.waiting: dict[int, deque[Frame]] = {}
        self._mappings = Mappings()
        self._mapped: dict[int, int] = {}  # by loan: bytes of the other side's shared memory
        self._mapped_bytes = 0
        #: Loans whose areas nobody refers to any more: `tend` gives them back.
        self.returned: deque[int] = deque()
        self._is_closed = False

    # Areas that this side sends.

    def ref(self, buffers: BufferSet | None) -> BufferRef:
        """Decide how buffers are sent. The caller passes the outcome to the conversation with their frame."""
        # The sender learns of the link's end a little later. Nobody would give back an area that it lends meanwhile.
        if buffers is None or self._is_closed:
            return NO_AREA
        if not buffers.is_large:
            return BufferRef(buffers.joined())
        segment = buffers.segment if buffers.size <= self.room else None
        lent = _Lent(buffers, is_shared=segment is not None)
        try:
            loan = self._loans.lend(buffers.size)
        except BaseException:
            lent.let_go()
            raise
        self._lent[loan] = lent
        if segment is None:
            return BufferRef(loan=loan, size=buffers.size)
        self._shared_bytes += buffers.size
        return BufferRef(b"", loan, buffers.size, segment.descriptor + 1, segment.name)

    def give_back(self, area: BufferRef) -> None:
        """End the loan of an area whose frame was not sent."""
        if area.loan:
            self._loans.withdraw(area.loan)
            self._end(area.loan)

    # Areas that this side receives.

    def receive(self, frame: Frame) -> None:
        """Deliver a frame of a call, now or as soon as its area and all earlier frames of its call have come."""
        if frame.call_id in self.waiting:
            self.waiting[frame.call_id].append(frame)
            self._fetch(frame)
        elif not self._fetch(frame):
            self._deliver(frame)
        else:
            self.waiting[frame.call_id] = deque([frame])

    def discard(self, call_id: int) -> list[Frame]:
        """Forget the frames of a call that have not been delivered, and return them without their areas."""
        frames = self.waiting.pop(call_id, ())
        for frame in frames:
            if frame.loan in self._arriving:
                self._end_fetch(frame.loan)
            frame.attached = b""
        return list(frames)

    def waits(self, call_id: int) -> bool:
        """Whether a call has frames that have not been delivered."""
        return call_id in self.waiting

    def handle(self, frame: Frame) -> None:
        """Handle a frame that is about a loan."""
        match frame.kind:
            case Kind.BUFFER:
                self._store(frame)
            case Kind.FETCH:
                self.peer_fetches = True
                self._send_pieces(frame.loan, self._lent[frame.loan])
            case Kind.TAKEN:
                self._took(self._lent[frame.loan])
            case Kind.RETURNED:
                self._end(frame.loan)
            case _:
                pass

    @property
    def room(self) -> int:
        """Bytes of shared memory that the other side may still get. Any thread may ask."""
        return self._limit - self._shared_bytes

    def tend(self) -> None:
        """Give back the loans whose areas nobody refers to any more. Call it before each write."""
        while self.returned:
            loan = self.returned.popleft()
            self._mapped_bytes -= self._mapped.pop(loan)
            self._loans.give_back(loan)

    def close(self) -> None:
        """End all loans after the end of the link."""
        self._is_closed = True
        self._mappings.close()
        self._arriving.clear()
        self._unfetched.clear()
        self.waiting.clear()
        for loan, lent in list(self._lent.items()):
            if lent.segment is not None:
                lent.segment.retire()
            self._end(loan)

    def _send_pieces(self, loan: int, lent: _Lent) -> None:
        compresses = self.peer_decompresses and lent.size >= (self._compress_from or math.inf)
        for _ in range(self._loans.wanted(loan)):
            if (piece := next(lent.pieces, None)) is None:
                break
            if compresses and (shorter := compress(piece)) is not None:
                self._loans.piece(loan, shorter, len(piece))
            else:
                self._loans.piece(loan, piece)

    def _took(self, lent: _Lent) -> None:
        if lent.segment is None or not lent.is_shared:
            raise RemoteProtocolError("what is not in shared memory was opened there")
        lent.is_taken = True
        lent.segment.take()

    def _end(self, loan: int) -> None:
        lent = self._lent.pop(loan)
        if lent.is_shared:
            self._shared_bytes -= lent.size
        lent.let_go()

    def _fetch(self, frame: Frame) -> bool:
        """Get the area of a frame. Returns whether the frame must wait for it."""
        loan = frame.loan
        if not loan:
            return False
        if frame.descriptor and self._map(frame):
            return False
        self._arriving[loan] = frame, None
        self._unfetched.append(loan)
        self._begin_fetches()
        return True

    def _begin_fetches(self) -> None:
        """Fetch the next areas. All that are fetched at a time have as many bytes as one area may have."""
        while self._unfetched:
            loan = self._unfetched[0]
            if loan in self._arriving:  # else its call has been discarded
                frame, _ = self._arriving[loan]
                if self._fetched_bytes and self._fetched_bytes + frame.size > self._max_area:
                    return
                area = mmap.mmap(-1, frame.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                self._arriving[loan] = frame, area
                self._fetched_bytes += frame.size
                self._loans.fetch(loan, _WINDOW)
            self._unfetched.popleft()

    def _end_fetch(self, loan: int) -> None:
        frame, area = self._arriving.pop(loan)
        if area is not None:
            self._fetched_bytes -= frame.size
        self._loans.give_back(loan)
        self._begin_fetches()

    def _map(self, frame: Frame) -> bool:
        loan = frame.loan
        # The lender hears later than this side that a loan is over, so an honest one never lends too much.
        if self._mapped_bytes + frame.size > self._limit:
            raise RemoteProtocolError(f"it lends more than {self._limit} bytes of shared memory (shared_memory)")
        try:
            view = self._mappings.open(
                self.peer_pid, frame.descriptor - 1, frame.segment, frame.size, lambda: self.returned.append(loan)
            )
        except OSError as error:
            logger.debug("shared memory cannot be opened, and is fetched: %s", error)
            return False
        self._mapped[loan] = frame.size
        self._mapped_bytes += frame.size
        self._loans.take(loan)
        frame.attached = view
        return True

    def _store(self, piece: Frame) -> None:
        if piece.loan not in self._arriving:
            return  # an earlier frame of the same batch has made us give the loan back
        frame, area = self._arriving[piece.loan]
        assert area is not None  # nobody has asked for pieces of others
        area.write(decompress(piece.body, piece.number) if piece.number else piece.body)
        if area.tell() == frame.size:
            self._end_fetch(piece.loan)
            frame.attached = memoryview(area).toreadonly()
            self._deliver_waiting(frame.call_id)
        elif area.tell() // PIECE_BYTES % (_WINDOW // 2) == 0:
            self._loans.fetch(piece.loan, _WINDOW // 2)

    def _deliver_waiting(self, call_id: int) -> None:
        frames = self.waiting[call_id]
        while frames and frames[0].loan not in self._arriving:
            self._deliver(frames.popleft())
        if not frames:
            del self.waiting[call_id]
