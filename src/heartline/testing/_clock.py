"""A node's own clock, which is wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["NodeClock"]

OFFSET = 60.0
"""Seconds that a wall clock is off, at most: one that is set by hand, or has lost its time server."""

DRIFT = 0.05
"""How much faster or slower a clock goes, at most: far beyond any quartz, so what relies on it is seen."""

EPOCH = 1_700_000_000.0
"""Seconds since 1970 at a world's beginning: a night in November 2023."""


@dataclass(frozen=True)
class NodeClock:
    """How a node's clock differs from the world's: ``offset`` seconds ahead, and ``rate`` times as fast."""

    offset: float
    rate: float

    @staticmethod
    def draw(rng: random.Random) -> NodeClock:
        """A clock that is off by at most 60 s, and goes at most 5 % wrong."""
        return NodeClock(rng.uniform(-OFFSET, OFFSET), 1.0 + rng.uniform(-DRIFT, DRIFT))

    def read(self, now: float) -> float:
        """The wall clock, in seconds since 1970, when it is ``now`` in the world."""
        return EPOCH + self.offset + now * self.rate

    def stretch(self, seconds: float) -> float:
        """Convert ``seconds`` of this clock to seconds of the world."""
        return seconds / self.rate
