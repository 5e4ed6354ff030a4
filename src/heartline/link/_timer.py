"""One timer wheel for the deadlines of all links of an endpoint.

One task sleeps until the earliest link has something due; there is no sleeping task per peer. While bytes
flow a link's due time only moves away, so each link is in one slot, that of the due time when it was last
checked. A link that comes up too early is put into a later slot. After G. Varghese and T. Lauck, "Hashed and
Hierarchical Timing Wheels", SOSP 1987, with three turns of our own:

- A deadline is rounded up to a grain of at most 1/128 of the time until then, so that many links share a
  slot, and a wake-up. Only slots that hold somebody exist; a heap has their times.
- Each link's PINGs go out after a share of its interval that is its own. Links that joined together, or were
  all sent the same broadcast, fall out of step, and rounding up still keeps within the interval.
- The wheel also turns when nothing is due, a few dozen times per timeout, to see what this program missed
  (see :mod:`heartline.session.listening`), and nobody is lost before every reader had its turn once more.
"""

from __future__ import annotations

import logging
import random
from heapq import heappop, heappush
from math import ceil, inf, sqrt

import trio

from heartline.errors import ConnectionLost
from heartline.link._link import Link
from heartline.session import Heartbeat
from heartline.session.listening import Listening

__all__ = ["HeartbeatTimer"]

logger = logging.getLogger("heartline.link")

TICKS = 2**16
"""Per second: finer than 1/128 of the shortest interval, a power of two so that slots have exact times."""

GRAIN_BITS = 7
"""A deadline may come late by 1/2**7 of the wait for it: at most 256 wake-ups per interval, for any number
of links."""

EARLIEST, LATEST = 7 / 8, 63 / 64
"""Share of the interval after which a link's PING goes out; a grain behind the latest is still within it."""

GOLDEN = (sqrt(5) - 1) / 2
"""From the share of one link to that of the next, modulo 1: however many there are, they lie evenly. Only
where that begins is drawn, so that the clients of one server do not keep step either."""

SWEEP = 256
"""Links that are checked in one go, about a millisecond, or two when each writes a PING."""

SECOND_LOOK = 4
"""Rounds of the loop before a silent peer is lost: what the last poll brought takes up to three to pass the
tasks and the layers, such as TLS and a WebSocket, on its way to the session."""

LONGEST_WAIT = 2**32
"""Seconds, about a century; a link with nothing due for longer, or ever, is looked at then."""


class HeartbeatTimer:
    """Checks every link's session when it has something due."""

    __slots__ = ("_listening", "_phase", "_scope", "_slots", "_suspects", "_times")

    def __init__(self, heartbeat: Heartbeat, rng: random.Random) -> None:
        self._listening = Listening(heartbeat.timeout)
        self._phase = rng.random()
        # Dictionaries for sets: their order does not depend on where in memory a link lies.
        self._slots: dict[int, dict[Link, None]] = {}
        self._times: list[int] = []
        self._suspects: dict[Link, None] = {}
        self._scope = trio.CancelScope()

    def add(self, link: Link) -> None:
        """Watch this link from now on."""
        now = trio.current_time()
        pulse = link.session.pulse
        pulse.listening = self._listening
        self._phase = (self._phase + GOLDEN) % 1.0
        pulse.pace(EARLIEST + self._phase * (LATEST - EARLIEST))
        self._put(link, pulse.next_check, now)
        # A wheel that stood still turns at once: its next look was due long ago.
        self._scope.deadline = min(self._scope.deadline, self._next_turn())

    def discard(self, link: Link) -> None:
        """Watch this link no longer."""
        self._slots.get(link.watch, self._suspects).pop(link, None)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The timer's task."""
        while True:
            with trio.CancelScope(deadline=self._next_turn()) as self._scope:
                await trio.sleep_forever()
            self._listening.look(trio.current_time())
            await self._sweep()
            if self._suspects:
                await self._look_again()

    def _next_turn(self) -> float:
        return min(self._times[0] / TICKS, self._listening.next_look) if self._times else inf

    def _put(self, link: Link, due: float, now: float) -> None:
        """Put a link into the slot of this time, rounded up to a grain; never into a slot that has begun."""
        reached = int(now * TICKS)
        ticks = ceil(due * TICKS) if due - now < LONGEST_WAIT else reached + LONGEST_WAIT * TICKS
        if ticks <= reached:
            ticks = reached + 1
        grain = (ticks - reached).bit_length() - 1 - GRAIN_BITS
        if grain > 0:
            ticks = -(-ticks >> grain) << grain
        slot = self._slots.get(ticks)
        if slot is None:
            slot = self._slots[ticks] = {}
            heappush(self._times, ticks)
        slot[link] = None
        link.watch = ticks

    async def _sweep(self) -> None:
        """Check the links whose time has come, and let other tasks run in between."""
        now = trio.current_time()
        checked = 0
        while self._times and self._times[0] <= now * TICKS:
            ticks = heappop(self._times)
            slot = self._slots[ticks]  # it stays there meanwhile, so that links can be discarded
            while slot:
                link, _ = slot.popitem()
                if not self._check(link, now):
                    link.watch = -1
                    self._suspects[link] = None
                checked += 1
                if checked % SWEEP == 0:
                    await trio.lowlevel.checkpoint()
                    now = trio.current_time()
            del self._slots[ticks]

    async def _look_again(self) -> None:
        """Lose the links that seem lost, unless their readers find bytes that came before now."""
        for _ in range(SECOND_LOOK):
            await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self._listening.look(now)
        checked = 0
        while self._suspects:
            self._check(self._suspects.popitem()[0], now, final=True)
            checked += 1
            if checked % SWEEP == 0:  # a whole network may have gone
                await trio.lowlevel.checkpoint()
                now = trio.current_time()

    def _check(self, link: Link, now: float, *, final: bool = False) -> bool:
        """Put the link into the slot where it is due next, or fail it; ``False`` if it seems to be lost."""
        try:
            due = link.session.check(now)
            link.flush()
        except ConnectionLost as error:
            if not final:
                return False
            link.lose(error)
        except Exception:
            # As in serve_link: a bug met on one link must not end the others.
            logger.exception("internal error in a heartbeat")
            link.fail(ConnectionLost("internal error, see the log"))
        else:
            self._put(link, due, now)
        return True
