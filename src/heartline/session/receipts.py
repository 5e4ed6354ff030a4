"""When the peer is told how many of its frames have arrived.

It keeps them until then. PINGs and PONGs carry the count; an ACK, which carries nothing else, goes out by
itself when a quarter of the peer's buffer, or ``ACK_SIZE`` bytes, came in, and it rides along with what is
written anyway, once in ``ACK_INTERVAL``. A peer that keeps nothing gets no ACK.
"""

from __future__ import annotations

import math

__all__ = ["ACK_INTERVAL", "ACK_SIZE", "Receipts"]

ACK_SIZE = 256 * 1024
"""Bytes after which an ACK goes out by itself: one for a whole read, so that it costs next to nothing."""

ACK_INTERVAL = 1.0
"""Seconds between ACKs that ride along: what a peer sends in that time it has to keep."""


class Receipts:
    """What the peer was told of the count, and what came since."""

    __slots__ = ("_interval", "_size", "count", "due", "rides_at", "unacked")

    def __init__(self) -> None:
        # Never, until the peer says that it keeps anything.
        self._size = self._interval = math.inf
        self.rides_at: float = math.inf
        """When an ACK goes with what is written anyway."""
        self.count: int = 0
        """The count that the peer was told last."""
        self.unacked: int = 0
        """Bytes that came since."""
        self.due: bool = False
        """Whether an ACK goes out with the next take, however often it became due."""

    def agree(self, buffer: int, now: float) -> None:
        """The peer keeps at most so many bytes."""
        self._size = min(ACK_SIZE, max(1, buffer // 4))
        self._interval = ACK_INTERVAL
        self.rides_at = now + ACK_INTERVAL

    def arrived(self, size: int, count: int) -> bool:
        """So many bytes came, and the count is this now; tells whether an ACK is due."""
        self.unacked += size
        if self.unacked >= self._size:
            self.due = count != self.count
        return self.due

    def told(self, count: int, rest: int, now: float) -> None:
        """The peer knows this count now.

        The ``rest``, the bytes that are here of the next frame, is not in it, and calls for the next ACK.
        """
        self.count, self.unacked, self.rides_at = count, rest, now + self._interval
        self.due = False
