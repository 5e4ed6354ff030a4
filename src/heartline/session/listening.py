"""The seconds in which this side listened: the clock, less its own lateness.

Whoever was not listening cannot blame a peer for silence. The timer tells of each *look*: a moment at which
every socket has just been polled. Between two looks at most a ``turn`` counts, however long they lie apart:
the loop was blocked, or the process stopped, for the rest. So a peer's silence of ``timeout`` seconds means
that at least ``timeout / turn`` polls found nothing, no two of them for more than a turn.
"""

from __future__ import annotations

from collections import deque

__all__ = ["SHORTEST_TURN", "TURNS", "Listening"]

TURNS = 32
"""Turns in a timeout: a stall that no look saw is at most 1/32 of what would end a link."""

SHORTEST_TURN = 1 / 256
"""Seconds; what a loop at work may well be late by, and often enough to look for the shortest timeout."""


class Listening:
    """What one endpoint missed, for all its links: asked only when a peer has been silent for long."""

    __slots__ = ("_last", "_missed", "turn")

    def __init__(self, timeout: float) -> None:
        self.turn: float = max(timeout / TURNS, SHORTEST_TURN)
        """Seconds; the timer looks at least that often."""
        self._last = 0.0
        # The end of each pause that was too long, and by how much. Each also holds a whole turn that counted:
        # whoever was silent through more of them than make a timeout is lost, whatever was before.
        self._missed: deque[tuple[float, float]] = deque(maxlen=TURNS + 1)

    def look(self, now: float) -> None:
        """Every socket has just been polled."""
        excess = now - self._last - self.turn
        if excess > 0:
            self._missed.append((now, excess))
        self._last = now

    @property
    def next_look(self) -> float:
        """When the timer should look again at the latest."""
        return self._last + self.turn

    def missed(self, since: float, now: float) -> float:
        """The seconds from ``since`` to ``now`` in which nobody listened, up to this very moment."""
        total = max(0.0, min(now - self._last - self.turn, now - since))
        if not self._missed or self._missed[-1][0] <= since:
            return total
        for end, excess in reversed(self._missed):
            if end <= since:
                break
            total += min(excess, end - since)
        return total
