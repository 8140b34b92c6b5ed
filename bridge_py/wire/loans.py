"""The rules of lent areas, without I/O: large buffers that do not travel in the frame that needs them.

A frame that carries a value may lend its area to the other side: it names a loan, its size, and the area's place in
shared memory, if it has one. The borrower opens that place, or has the area sent piece by piece, as fast as
it asks. The life of a loan, seen by its lender (the borrower's view is the mirror image):

    state      may send                   may receive    next state
    -----      --------                   -----------    ----------
    lent       nothing                    FETCH          fetched
                                          TAKEN          taken
                                          RETURNED       over
    fetched    BUFFER (one asked for      FETCH          fetched
               each, `size` bytes in all) RETURNED       over
    taken      nothing                    RETURNED       over

Asked for and not on their way yet may be 64 pieces of a loan. So a borrower that asks and does not read cannot make
its lender pile up the area in memory.

Only the borrower ends a loan, exactly once. BUFFER may cross RETURNED on the wire, so the borrower silently drops
pieces of a loan that is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .errors import LocalProtocolError, RemoteProtocolError
from .frames import Frame, Kind

PIECE_BYTES: Final = 64 * 1024
MOST_ASKED: Final = 64  # pieces
MAX_AREA_BYTES: Final = 1 << 40
_TAKEN: Final = -1
Send = Callable[[Frame], None]


class Loans:
    """The loans that one side has lent and borrowed.

    `send` takes frames, `send_along` frames that may wait until another frame is sent, `send_bulk` large frames.
    """

    def __init__(self, send: Send, send_along: Send, send_bulk: Send, max_area: int) -> None:
        self._send = send
        self._send_along = send_along
        self._send_bulk = send_bulk
        self._max_area = max_area
        self._next_id = 1
        self._last_of_peer = 0
        self._lent: dict[int, int] = {}  # loan -> pieces that were asked for and are not sent yet, or _TAKEN
        self._unsent: dict[int, int] = {}  # loan -> bytes
        self._under_way: dict[int, int] = {}  # loan -> pieces that were asked for and have not left this side
        self._borrowed: dict[int, int] = {}  # loan -> pieces that we asked for and that have not come, or _TAKEN
        self._missing: dict[int, int] = {}  # loan -> bytes

    @property
    def open_loans(self) -> int:
        """How many loans are not over yet, of both sides together."""
        return len(self._lent) + len(self._borrowed)

    # Frames that the lender sends.

    def lend(self, size: int) -> int:
        """Begin a loan of `size` bytes and return its id, which a frame must name."""
        if not 0 < size <= self._max_area:
            raise LocalProtocolError(f"an area of {size} bytes cannot be lent; the limit is {self._max_area}")
        loan = self._next_id
        self._next_id += 1
        self._lent[loan], self._unsent[loan], self._under_way[loan] = 0, size, 0
        return loan

    def withdraw(self, loan: int) -> None:
        """Forget a loan that no frame has named."""
        del self._lent[loan], self._unsent[loan], self._under_way[loan]

    def wanted(self, loan: int) -> int:
        """How many pieces were asked for and are not sent yet.

        Zero if the loan is over: its end may have come in the same batch.
        """
        return max(0, self._lent.get(loan, 0))

    def piece(self, loan: int, data: bytes, size: int = 0) -> None:
        """Send the next piece of a loan; `size` is its size in bytes before compression, 0 without."""
        if self._lent.get(loan, 0) <= 0 or (size or len(data)) > min(self._unsent[loan], PIECE_BYTES):
            raise LocalProtocolError(f"no such piece of loan {loan} was asked for")
        self._lent[loan] -= 1
        self._unsent[loan] -= size or len(data)
        self._send_bulk(Frame(Kind.BUFFER, number=size, body=data, loan=loan))

    def piece_goes(self, loan: int) -> None:
        """Note that a piece leaves this side. The loan may be over."""
        if loan in self._under_way:
            self._under_way[loan] -= 1

    # Frames that the borrower sends.

    def fetch(self, loan: int, pieces: int) -> None:
        """Ask for that many more pieces."""
        if self._borrowed.get(loan, _TAKEN) == _TAKEN or pieces <= 0:
            raise LocalProtocolError(f"loan {loan} is none that we may fetch, or {pieces} is not positive")
        self._borrowed[loan] += pieces
        self._send(Frame(Kind.FETCH, number=pieces, loan=loan))

    def take(self, loan: int) -> None:
        """Tell the lender that the shared memory is open here."""
        if self._borrowed.get(loan) != 0:
            raise LocalProtocolError(f"loan {loan} is none that we may take")
        self._borrowed[loan] = _TAKEN
        self._send_along(Frame(Kind.TAKEN, loan=loan))

    def give_back(self, loan: int) -> None:
        """End a loan of the peer's."""
        if self._borrowed.pop(loan, None) is None:
            raise LocalProtocolError(f"loan {loan} is no open one of the peer's")
        del self._missing[loan]
        self._send_along(Frame(Kind.RETURNED, loan=loan))

    def missing(self, loan: int) -> int:
        """How many bytes of a borrowed area have not come yet."""
        return self._missing[loan]

    # Frames from the peer. Most methods return whether this side must act on the frame.

    def peer_lent(self, frame: Frame) -> None:
        """Note the peer's loan that a frame names."""
        if frame.loan <= self._last_of_peer:
            raise RemoteProtocolError(f"loan {frame.loan} is not new (last: {self._last_of_peer})")
        if not 0 < frame.size <= self._max_area:
            raise RemoteProtocolError(f"a loan of {frame.size} bytes; the limit is {self._max_area}")
        self._last_of_peer = frame.loan
        self._borrowed[frame.loan], self._missing[frame.loan] = 0, frame.size

    def peer_sent_piece(self, frame: Frame) -> bool:
        """Check a BUFFER frame, and count its bytes as come. Returns False if the loan is over."""
        loan = frame.loan
        asked = self._borrowed.get(loan)
        if asked is None and 0 < loan <= self._last_of_peer:
            return False
        if asked is None or asked <= 0:
            raise RemoteProtocolError(f"a piece of loan {loan} that nobody asked for")
        size = frame.number or len(frame.body)
        if not 0 < size <= min(PIECE_BYTES, self._missing[loan]):
            raise RemoteProtocolError(f"a piece of {size} bytes of loan {loan}, which misses {self._missing[loan]}")
        self._borrowed[loan] = asked - 1
        self._missing[loan] -= size
        return True

    def peer_fetches(self, frame: Frame) -> bool:
        """Check a FETCH frame, and note the pieces that it asks for."""
        asked = self._lent.get(frame.loan, _TAKEN)
        if asked == _TAKEN or not 0 < frame.number <= MAX_AREA_BYTES:
            raise RemoteProtocolError(f"pieces of loan {frame.loan} cannot be asked for")
        under_way = self._under_way[frame.loan] + frame.number
        if under_way > MOST_ASKED:
            raise RemoteProtocolError(f"{under_way} pieces of loan {frame.loan} at a time; the limit is {MOST_ASKED}")
        self._lent[frame.loan], self._under_way[frame.loan] = asked + frame.number, under_way
        return True

    def peer_took(self, frame: Frame) -> bool:
        """Check a TAKEN frame, and note that the peer has opened the shared memory."""
        if self._lent.get(frame.loan) != 0:
            raise RemoteProtocolError(f"loan {frame.loan} cannot be taken")
        self._lent[frame.loan] = _TAKEN
        return True

    def peer_gave_back(self, frame: Frame) -> bool:
        """Check a RETURNED frame, and end the loan."""
        if self._lent.pop(frame.loan, None) is None:
            raise RemoteProtocolError(f"loan {frame.loan} was given back, which is not open")
        del self._unsent[frame.loan], self._under_way[frame.loan]
        return True
