"""One direction of a link: how long bytes take, and a time of its own that stands still in an outage."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Protocol

import trio

__all__ = ["Wire"]


class Waiter(Protocol):
    """Something whose tasks wait for a moment of a wire's time."""

    changed: trio.lowlevel.ParkingLot


class Wire:
    """Bytes that a node sends to another one: all streams between the two share it.

    A wire has its own time, in seconds. It goes like the world's, but stands still while nothing passes: what
    is under way in an outage arrives when the outage is over, that much later, and nobody has to touch it.
    """

    def __init__(
        self, clock: Callable[[], float], rng: random.Random, latency: float, jitter: float, bandwidth: float
    ) -> None:
        self.latency = latency
        self.jitter = jitter
        self.bandwidth = bandwidth
        self.rng = rng
        self.users: dict[Waiter, None] = {}
        """Those that have to look at the time again when it is stopped or goes on."""
        self._clock = clock
        self._mark = 0.0
        self._resumes = 0.0
        """In the world's time: then this wire's is (or was) ``_mark``, and goes on."""
        self._free = 0.0
        """When all that was handed over has left the sender, at this bandwidth."""

    def now(self) -> float:
        """The wire's time."""
        return self._mark + max(0.0, self._clock() - self._resumes)

    def due(self, moment: float) -> float:
        """When, in the world's time, it will be ``moment`` here; ``inf`` if that is not known."""
        return -math.inf if moment <= self._mark else self._resumes + (moment - self._mark)

    def is_past(self, moment: float) -> bool:
        """Whether it is ``moment`` or later; agrees with :meth:`due` to the last bit, so waiting ends."""
        return self._clock() >= self.due(moment)

    def send(self, size: int) -> float:
        """Send ``size`` bytes; returns when the last of them arrives, if nothing is delayed behind others."""
        self._free = max(self.now(), self._free) + size / self.bandwidth
        return self._free + self.latency + self.rng.uniform(0, self.jitter)

    @property
    def stalled(self) -> bool:
        """Whether nothing passes at the moment."""
        return self._clock() < self._resumes

    def stall(self, seconds: float = math.inf) -> None:
        """Let nothing pass for this many seconds, or until :meth:`heal`."""
        self._mark = self.now()
        self._resumes = max(self._resumes, self._clock() + seconds)
        self._wake()

    def heal(self) -> None:
        """Let bytes pass again."""
        if self.stalled:
            self._resumes = self._clock()
            self._wake()

    def _wake(self) -> None:
        for user in self.users:
            user.changed.unpark_all()
