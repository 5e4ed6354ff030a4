"""How much of long messages may be under way: what keeps the line busy, not all that the buffers hold.

What is under way is ahead of every later control frame and small message, and a sender that is faster than
its peer would fill all buffers between them. So the time from sending a frame to its confirmation is watched.
While it is about the shortest that was seen, nothing queues, and more may be under way; when it grows,
something does, and less may. TCP Vegas (Brakmo and Peterson, 1995) compares the same two times.
"""

from __future__ import annotations

import math

__all__ = ["Pace"]

LEAST = 512 * 1024
"""Bytes that may always be under way: two ACKs' worth, one on its way back while the rest is read."""

QUEUE = 0.005
"""Seconds that may be spent in queues, beside a quarter of the shortest time: lines are not that exact."""

GROWTH = 1.25
"""Factor for each round trip in which nothing queued: eight times as much after ten of them."""

SHRINKAGE = 0.75
"""Factor for each round trip in which something did."""


class Pace:
    """The bound on what is under way on one link, within the one on what is kept."""

    __slots__ = ("_left_at", "_most", "_shortest", "_watched", "limit")

    def __init__(self, most: int) -> None:
        self._most = most
        self._shortest = math.inf
        self._watched = 0
        self._left_at = 0.0
        self.limit: float = min(LEAST, most)
        """Bytes sent and not confirmed from which on no further fragment is sent."""

    def sent(self, position: int, under_way: int, now: float) -> None:
        """The frame at this position has left: watch it, unless another one is watched.

        With less under way than what the peer confirms by itself, the time would be that until it has a
        reason to.
        """
        if not self._watched and under_way >= self.limit / 2:
            self._watched, self._left_at = position, now

    def confirmed(self, position: int, now: float) -> None:
        """Everything up to this position has arrived."""
        if not 0 < self._watched <= position:
            return
        took = now - self._left_at
        self._watched = 0
        self._shortest = min(self._shortest, took)
        if took > self._shortest * 1.25 + QUEUE:
            self.limit = max(min(LEAST, self._most), self.limit * SHRINKAGE)
        else:
            self.limit = min(self._most, self.limit * GROWTH)
