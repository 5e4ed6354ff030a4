"""What this side reports without being asked, and when: PING, PONG and ACK, each with the count received.

Each is said once with the next write, however often it became due: a peer that never reads costs no more.

A peer keeps its frames until the count reaches them. PINGs and PONGs carry it; an ACK, which carries nothing
else, goes out by itself when a quarter of the peer's buffer, or ``ACK_SIZE`` bytes, came in, and it rides
along with what is written anyway, once in ``ACK_INTERVAL``. A peer that keeps nothing gets no ACK.
"""

from __future__ import annotations

import math

from heartline.session.messages import CONFIRMATION, MARK
from heartline.session.outbox import Outbox
from heartline.wire import FrameType

__all__ = ["ACK_INTERVAL", "ACK_SIZE", "Reports"]

ACK_SIZE = 256 * 1024
"""Bytes after which an ACK goes out by itself: one for a whole read, so that it costs next to nothing."""

ACK_INTERVAL = 1.0
"""Seconds between ACKs that ride along: what a peer sends in that time it has to keep."""


class Reports:
    """What is due, what the peer was told of the count, and what came since."""

    __slots__ = (
        "_interval",
        "_size",
        "ack_due",
        "any_due",
        "ping_due",
        "pong_due",
        "rides_at",
        "told_count",
        "unacked",
    )

    def __init__(self) -> None:
        # Never, until the peer says that it keeps anything.
        self._size = self._interval = math.inf
        self.rides_at: float = math.inf
        """When an ACK goes with what is written anyway."""
        self.told_count: int = 0
        """The count that the peer was told last."""
        self.unacked: int = 0
        """Bytes that came since."""
        self.any_due: bool = False
        """Whether the next write has to say anything of these, or CREDIT."""
        self.ack_due: bool = False
        self.ping_due: bool = False
        self.pong_due: bytes | None = None
        """The time of the PING that is to be answered."""

    def agree(self, buffer: int, now: float) -> None:
        """The peer keeps at most so many bytes."""
        self._size = min(ACK_SIZE, max(1, buffer // 4))
        self._interval = ACK_INTERVAL
        self.rides_at = now + ACK_INTERVAL

    def add_received(self, size: int, count: int) -> None:
        """So many bytes came, and the count is this now."""
        self.unacked += size
        if self.unacked >= self._size and count != self.told_count:
            self.ack_due = self.any_due = True

    def peer_knows(self, count: int, rest: int, now: float) -> None:
        """The peer knows this count now.

        The ``rest``, the bytes that are here of the next frame, is not in it, and calls for the next ACK.
        """
        self.told_count, self.unacked, self.rides_at = count, rest, now + self._interval
        self.ack_due = False

    def put(self, outbox: Outbox, count: int, now: float, *, acknowledges: bool) -> bool:
        """Queue what is due; tells whether the peer learns the count by it."""
        told = True
        if self.pong_due is not None:
            outbox.put_control(FrameType.PONG, 0, self.pong_due + CONFIRMATION.pack(count))
        if self.ping_due:
            outbox.put_control(FrameType.PING, 0, MARK.pack(now, count))
        if self.ack_due and acknowledges:
            outbox.put_control(FrameType.ACK, 0, CONFIRMATION.pack(count))
        else:
            told = self.ping_due or self.pong_due is not None
        self.void()
        return told

    def void(self) -> None:
        """Nothing is due any more."""
        self.any_due = self.ack_due = self.ping_due = False
        self.pong_due = None
