"""The rules of the link, without I/O and without a clock: bytes in, frames out, and back.

Both sides run this one class. It knows the rules that neither side may break: call ids, which frame may follow
which, credit for streams, and the largest frame. It checks each frame that arrives, once, and returns only frames that
are legal at that point. A frame that breaks a rule raises `RemoteProtocolError`. A frame that this side may not send
raises `LocalProtocolError`, and nothing is sent.

The life of a call, seen from the side that opened it (the other side's view is the mirror image):

    state        may send                may receive                  next state
    -----        --------                -----------                  ----------
    plain        CANCEL, RECALL          PROGRESS                     plain
                                         RESULT, ERROR                over
    streaming    CANCEL, RECALL, CREDIT  CHUNK (if credit is left)    streaming
                                         PROGRESS                     streaming
                                         END, ERROR                   over
    over         nothing                 nothing

Each chunk costs its sender credit according to its size (`credit_of`). A chunk may be sent while any credit is left, so
that one of any size can go; it then leaves a debt.

Only the serving side ends a call, exactly once, cancelled or not: the frame that ends it proves that no
code of the call runs any more. CANCEL, RECALL and CREDIT may cross that frame on the wire, so the
serving side ignores them silently if the call is over. `loans` describes how the areas of large buffers follow
their frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final, Literal

import msgspec

from .errors import FrameTooLarge, LocalProtocolError, RemoteProtocolError
from .frames import BATCH_BYTES, BATCH_FRAMES, CALL, CHUNK, PROTOBUF, RESULT, STREAM, Format, Frame, Kind, credit_of
from .loans import MAX_AREA_BYTES, Loans

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_PLAIN: Final = -(1 << 64)  # no debt is that large
_FRAME_COST: Final = 200  # bytes that a frame takes in memory beside its own


class Side(Enum):
    """The side that this process is on. The host opens calls with odd ids, the worker with even ids."""

    HOST = 1
    WORKER = 2


_CARRIERS: Final = frozenset({Kind.CALL, Kind.STREAM, Kind.RESULT, Kind.CHUNK})
_ABOUT_LOANS: Final = frozenset({Kind.FETCH, Kind.BUFFER, Kind.TAKEN, Kind.RETURNED})


class BufferRef(msgspec.Struct, frozen=True, gc=False):
    """How the large buffers of a value travel: in its frame, or lent (see `Frame`)."""

    attached: bytes = b""
    loan: int = 0
    size: int = 0
    descriptor: int = 0
    segment: str = ""


NO_AREA: Final = BufferRef()


# When a call began, in nanoseconds of CLOCK_MONOTONIC (0: not said), the microseconds that it took, and the traceparent
# of the span that the worker has made of it (empty: none). A plain tuple, because each call makes one.
Times = tuple[int, int, str]
UNTIMED: Final[Times] = (0, 0, "")


class Conversation:
    """One side of a link.

    `max_frame` limits a frame's encoded size in bytes, in both directions, and `max_area` the size of a lent area.
    `max_frames` limits the frames of a batch that comes, and `max_served` the peer's calls that are open at a time;
    None stands for no limit. `max_unread` is how many bytes may wait for the peer to read them, without the calls that
    this side opens: `is_overdue` tells when there are more. None has nothing counted.
    """

    def __init__(
        self,
        side: Side,
        *,
        max_frame: int = MAX_FRAME_BYTES,
        max_area: int = MAX_AREA_BYTES,
        max_frames: int | None = None,
        max_served: int | None = None,
        max_unread: int | None = None,
    ) -> None:
        self.loans = Loans(self._send, self._send_along, self._send_bulk, max_area)
        #: How frames become bytes, on this carrier.
        self.format: Format = PROTOBUF
        self._max_frame = max_frame
        self._max_frames = max_frames
        self._max_served = max_served
        self._unanswered_pings = 0
        self._next_id: int = side.value
        self._peer_parity = 1 - side.value % 2
        self._last_peer_id = 0
        self._opened: dict[int, int] = {}  # call id -> credit that the peer has, or _PLAIN
        self._served: dict[int, int] = {}  # call id -> credit that we have, or _PLAIN
        self._said_hello = self._heard_hello = False
        self._said_goodbye = self._heard_goodbye = False
        self._out: list[bytes] = []
        self._along: list[bytes] = []
        self._bulk: deque[tuple[int, bytes]] = deque()  # pieces of areas, each with its loan
        #: Whether more waits for the peer than it may leave unread.
        self.is_overdue = False
        self._max_unread = max_unread
        self._unread: deque[tuple[int, int]] = deque()  # how many frames have gone when this one has, and its bytes
        self._unread_bytes = 0
        self._gone = 0  # frames that `data_to_send` has returned
        self._receivers: dict[int, Callable[[Frame], bool]] = {
            Kind.HELLO: self._heard_hello_frame,
            Kind.CALL: self._peer_opened,
            Kind.STREAM: self._peer_opened,
            Kind.RESULT: self._peer_ended_plain,
            Kind.ERROR: self._peer_ended_any,
            Kind.CHUNK: self._peer_sent_chunk,
            Kind.END: self._peer_ended_stream,
            Kind.CREDIT: self._peer_granted,
            Kind.CANCEL: self._peer_gave_up,
            Kind.RECALL: self._peer_gave_up,
            Kind.PING: self._on_link,
            Kind.PONG: self._peer_answered,
            Kind.EVENT: self._on_link,
            Kind.INVALIDATE: self._on_link,
            Kind.GOODBYE: self._heard_goodbye_frame,
            Kind.FETCH: self.loans.peer_fetches,
            Kind.BUFFER: self.loans.peer_sent_piece,
            Kind.TAKEN: self.loans.peer_took,
            Kind.RETURNED: self.loans.peer_gave_back,
            Kind.PROGRESS: self._peer_progressed,
        }

    # Frames that this side sends.

    def hello(self, body: bytes) -> None:
        """Introduce this side. Hello is the first frame that each side sends."""
        if self._said_hello:
            raise LocalProtocolError("hello was said already")
        self._said_hello = True
        self._send(Frame(Kind.HELLO, body=body))

    def open(
        self,
        name: str,
        body: bytes,
        *,
        session_id: str = "",
        timeout_us: int = 0,
        credit: int | None = None,
        area: BufferRef = NO_AREA,
        trace: str = "",
    ) -> int:
        """Open a call and return its id: a plain one, or a stream if `credit` is given.

        Raises `FrameTooLarge` if the arguments do not fit into a frame.
        """
        if not self._heard_hello or not self._said_hello or self._said_goodbye:
            raise LocalProtocolError("calls are opened between hello and goodbye only")
        if credit is not None and credit < 0:
            raise LocalProtocolError(f"a stream cannot begin with a credit of {credit}")
        call_id = self._next_id
        kind = CALL if credit is None else STREAM
        frame = Frame(kind, call_id, name, session_id, timeout_us, body)
        if trace:
            frame.trace = trace
        said = [self._encode(frame if area is NO_AREA else _loaded(frame, area))]
        if credit:
            said.append(self._encode(Frame(Kind.CREDIT, call_id, number=credit)))
        # From here on nothing can fail: a call is opened whole, or not at all.
        self._out += said
        self._next_id += 2
        self._opened[call_id] = _PLAIN if credit is None else credit
        return call_id

    def grant(self, call_id: int, credit: int) -> None:
        """Give the peer that much more credit for a stream we opened."""
        allowance = self._opened.get(call_id, _PLAIN)
        if allowance == _PLAIN or credit < 0:
            raise LocalProtocolError(f"call {call_id} is no open stream of ours, or {credit} is negative")
        if credit:
            self._send(Frame(Kind.CREDIT, call_id, number=credit))
            self._opened[call_id] = allowance + credit

    def cancel(self, call_id: int) -> None:
        """Ask the peer to stop a call we opened; it still ends the call itself."""
        self._send_about_own(Kind.CANCEL, call_id)

    def recall(self, call_id: int) -> None:
        """Ask the peer to give back a call we opened if it has not started."""
        self._send_about_own(Kind.RECALL, call_id)

    def result(self, call_id: int, body: bytes, area: BufferRef = NO_AREA, times: Times = UNTIMED) -> None:
        """End a plain call with its result."""
        if self._served.get(call_id) != _PLAIN:
            raise LocalProtocolError(f"call {call_id} is no open plain call of the peer's")
        frame = Frame(RESULT, call_id, "", "", times[1], body)
        frame.began, frame.trace = times[0], times[2]
        self._send(frame if area is NO_AREA else _loaded(frame, area))
        del self._served[call_id]

    def error(self, call_id: int, body: bytes, times: Times = UNTIMED) -> None:
        """End a call with an error."""
        if call_id not in self._served:
            raise LocalProtocolError(f"call {call_id} is no open call of the peer's")
        self._send(Frame(Kind.ERROR, call_id, number=times[1], body=body, trace=times[2], began=times[0]))
        del self._served[call_id]

    def chunk(self, call_id: int, body: bytes, area: BufferRef = NO_AREA, _times: Times = UNTIMED) -> None:
        """Send a chunk of a stream, which costs credit."""
        credit = self._served.get(call_id, _PLAIN)
        if credit <= 0:
            raise LocalProtocolError(f"call {call_id} is no open stream of the peer's with credit left")
        chunk = Frame(CHUNK, call_id, body=body)
        self._send(chunk if area is NO_AREA else _loaded(chunk, area))
        self._served[call_id] = credit - credit_of(chunk)

    def progress(self, call_id: int, body: bytes) -> None:
        """Say how far a call has come."""
        if call_id not in self._served:
            raise LocalProtocolError(f"call {call_id} is no open call of the peer's")
        self._send(Frame(Kind.PROGRESS, call_id, body=body))

    def end(self, call_id: int, times: Times = UNTIMED) -> None:
        """End a stream."""
        if self._served.get(call_id, _PLAIN) == _PLAIN:
            raise LocalProtocolError(f"call {call_id} is no open stream of the peer's")
        self._send(Frame(Kind.END, call_id, number=times[1], trace=times[2], began=times[0]))
        del self._served[call_id]

    def link(self, kind: Literal[Kind.PING, Kind.PONG, Kind.EVENT, Kind.INVALIDATE], frame: Frame) -> None:
        """Send a frame that is about the link and not about a call."""
        frame.kind, frame.call_id = kind, 0
        self._send(frame)
        if kind == Kind.PING:
            self._unanswered_pings += 1

    def goodbye(self) -> None:
        """Announce that this side opens no more calls."""
        if not self._said_goodbye:
            self._said_goodbye = True
            self._send(Frame(Kind.GOODBYE))

    def data_to_send(self) -> bytes:
        """Return the frames since the last time, as one batch; empty bytes if there are none.

        The batch has at most one piece of a lent area, behind all urgent frames, so that no frame waits for many
        pieces. Frames that are not urgent wait for a batch with other frames. If there is more than a batch may hold,
        the next batch has the rest.
        """
        if self._bulk:
            self._out.append(self._next_piece())
        if not self._out:
            return b""
        if self._along:
            self._out += self._along
            self._along.clear()
        end = 1 if len(self._out) == 1 else _end_of_batch(self._out)
        data = self.format.join(self._out[:end])  # if anything was raised until here, no frame is lost
        del self._out[:end]
        self._gone += end
        return data

    @property
    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` would return anything."""
        return bool(self._out or self._bulk)

    def is_open(self, call_id: int) -> bool:
        """Whether a call that this side opened has not been ended by the peer."""
        return call_id in self._opened

    def serves(self, call_id: int) -> bool:
        """Whether a call that the peer opened has not been ended by this side."""
        return call_id in self._served

    def has_credit(self, call_id: int) -> bool:
        """Whether the peer takes another chunk of a stream that it opened."""
        return self._served.get(call_id, _PLAIN) > 0

    @property
    def waiting_frames(self) -> int:
        """How many frames `data_to_send` has not returned yet, without pieces of areas."""
        return len(self._out)

    @property
    def open_calls(self) -> int:
        """How many calls are not over yet, of both sides together."""
        return len(self._opened) + len(self._served)

    # Frames from the peer.

    def receive(self, data: bytes) -> list[Frame]:
        """Take a batch from the peer and return its frames, checked, in order.

        Raises `RemoteProtocolError` at the first frame that breaks a rule; do not use the conversation
        after that.
        """
        frames = []
        for frame in self.format.decode(data, self._max_frame, self._max_frames):
            receiver = self._receivers.get(frame.kind)
            if receiver is None:
                raise RemoteProtocolError(f"a frame of the unknown kind {frame.kind}")
            if not self._heard_hello and frame.kind != Kind.HELLO:
                raise RemoteProtocolError(f"a frame of kind {frame.kind} before hello")
            if frame.loan and frame.kind not in _ABOUT_LOANS:
                self._peer_lent(frame)
            if receiver(frame):
                frames.append(frame)
        return frames

    def _heard_hello_frame(self, frame: Frame) -> bool:
        if self._heard_hello:
            raise RemoteProtocolError("a second hello")
        self._heard_hello = True
        return self._on_link(frame)

    def _heard_goodbye_frame(self, frame: Frame) -> bool:
        self._heard_goodbye = True
        return self._on_link(frame)

    def _peer_lent(self, frame: Frame) -> None:
        if frame.kind not in _CARRIERS:
            raise RemoteProtocolError(f"a frame of kind {frame.kind} with a loan")
        self.loans.peer_lent(frame)

    def _on_link(self, frame: Frame) -> bool:
        if frame.call_id:
            raise RemoteProtocolError(f"a frame of kind {frame.kind} for call {frame.call_id}, not for the link")
        return True

    def _peer_answered(self, frame: Frame) -> bool:
        if not self._unanswered_pings:
            raise RemoteProtocolError("an answer to no ping")
        self._unanswered_pings -= 1
        return self._on_link(frame)

    def _peer_opened(self, frame: Frame) -> bool:
        call_id = frame.call_id
        if call_id % 2 != self._peer_parity or call_id <= self._last_peer_id:
            raise RemoteProtocolError(f"call id {call_id} is not the peer's to open (last: {self._last_peer_id})")
        if self._heard_goodbye:
            raise RemoteProtocolError(f"call {call_id} was opened after goodbye")
        if len(self._served) == self._max_served:
            raise RemoteProtocolError(
                f"call {call_id} was opened while {self._max_served} others have no answer yet (max_asks)"
            )
        self._last_peer_id = call_id
        self._served[call_id] = _PLAIN if frame.kind == CALL else 0
        return True

    def _peer_ended_plain(self, frame: Frame) -> bool:
        if self._opened.pop(frame.call_id, None) != _PLAIN:
            raise RemoteProtocolError(f"a result for call {frame.call_id}, which is no open plain call")
        return True

    def _peer_ended_any(self, frame: Frame) -> bool:
        if self._opened.pop(frame.call_id, None) is None:
            raise RemoteProtocolError(f"an error for call {frame.call_id}, which is not open")
        return True

    def _peer_ended_stream(self, frame: Frame) -> bool:
        if self._opened.pop(frame.call_id, _PLAIN) == _PLAIN:
            raise RemoteProtocolError(f"an end for call {frame.call_id}, which is no open stream")
        return True

    def _peer_sent_chunk(self, frame: Frame) -> bool:
        allowance = self._opened.get(frame.call_id, _PLAIN)
        if allowance <= 0:
            raise RemoteProtocolError(f"a chunk for call {frame.call_id}, which is no open stream with credit left")
        frame.number = cost = credit_of(frame)
        self._opened[frame.call_id] = allowance - cost
        return True

    def _peer_progressed(self, frame: Frame) -> bool:
        if frame.call_id not in self._opened:
            raise RemoteProtocolError(f"progress of call {frame.call_id}, which is not open")
        return True

    def _peer_granted(self, frame: Frame) -> bool:
        if not self._is_for_served(frame):
            return False
        credit = self._served[frame.call_id]
        if credit == _PLAIN:
            raise RemoteProtocolError(f"credit for call {frame.call_id}, which is no stream")
        self._served[frame.call_id] = credit + frame.number
        return True

    def _peer_gave_up(self, frame: Frame) -> bool:
        return self._is_for_served(frame)

    def _is_for_served(self, frame: Frame) -> bool:
        call_id = frame.call_id
        if call_id % 2 != self._peer_parity or not 0 < call_id <= self._last_peer_id:
            raise RemoteProtocolError(f"a frame of kind {frame.kind} for call {call_id}, which was never opened")
        return call_id in self._served

    def _send_about_own(self, kind: Kind, call_id: int) -> None:
        if call_id not in self._opened:
            raise LocalProtocolError(f"call {call_id} is no open call of ours")
        self._send(Frame(kind, call_id))

    def _send(self, frame: Frame) -> None:
        data = self._encode(frame)
        if self._max_unread is not None:
            self._count_unread(len(data) + _FRAME_COST, self._max_unread)
        self._out.append(data)

    def _count_unread(self, size: int, most: int) -> None:
        while self._unread and self._unread[0][0] <= self._gone:
            self._unread_bytes -= self._unread.popleft()[1]
        # Without this frame: it may be larger than the limit.
        self.is_overdue = self._unread_bytes > most
        self._unread.append((self._gone + len(self._out) + 1, size))
        self._unread_bytes += size

    def _send_along(self, frame: Frame) -> None:
        self._along.append(self._encode(frame))

    def _send_bulk(self, frame: Frame) -> None:
        self._bulk.append((frame.loan, self._encode(frame)))

    def _next_piece(self) -> bytes:
        loan, piece = self._bulk[0]
        self.loans.piece_goes(loan)
        self._bulk.popleft()  # if anything was raised, the piece is not lost
        return piece

    def _encode(self, frame: Frame) -> bytes:
        if not self._said_hello and frame.kind != Kind.HELLO:
            raise LocalProtocolError("hello comes first")
        data = self.format.encode(frame)
        if len(data) > self._max_frame:
            raise FrameTooLarge(f"a frame of {len(data)} bytes is over the limit of {self._max_frame} bytes")
        return data


def _loaded(frame: Frame, area: BufferRef) -> Frame:
    frame.attached, frame.loan = area.attached, area.loan
    frame.size, frame.descriptor, frame.segment = area.size, area.descriptor, area.segment
    return frame


def _end_of_batch(frames: list[bytes]) -> int:
    """How many of the frames the next batch has."""
    if len(frames) <= BATCH_FRAMES and sum(map(len, frames)) <= BATCH_BYTES:
        return len(frames)
    size = len(frames[0])
    for number, frame in enumerate(frames[1:BATCH_FRAMES], 1):
        size += len(frame)
        if size > BATCH_BYTES:
            return number
    return min(len(frames), BATCH_FRAMES)
