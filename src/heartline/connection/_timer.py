"""One timer for the heartbeats of all links of an endpoint.

A task that sleeps until the earliest link has something due, never a sleeping task per peer. What a link has
due only moves away while bytes flow, so each link stands once in a heap, with the time that was last known:
whoever comes up too early is put back, and a wake-up costs nothing for all the others.
"""

from __future__ import annotations

import logging
import math
from heapq import heappop, heappush
from itertools import count

import trio

from heartline.connection._link import Link
from heartline.errors import ConnectionLost

__all__ = ["HeartbeatTimer"]

logger = logging.getLogger("heartline")


STALL = 0.05
"""Seconds by which this program's loop may wake up late without it being called a stall."""


class HeartbeatTimer:
    """Checks every link's heartbeat when it is due."""

    __slots__ = ("_heap", "_links", "_numbers", "_planned", "_scope")

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._heap: list[tuple[float, int]] = []
        self._numbers = count()
        self._planned = math.inf
        self._scope = trio.CancelScope()

    def add(self, link: Link) -> None:
        """Watch this link from now on."""
        link.watch = next(self._numbers)
        self._links[link.watch] = link
        due = link.session.pulse.next_check
        heappush(self._heap, (due, link.watch))
        if due < self._planned:
            self._planned = self._scope.deadline = due

    def discard(self, link: Link) -> None:
        """Watch this link no longer."""
        self._links.pop(link.watch, None)

    async def run(self) -> None:
        """The timer's task."""
        while True:
            with trio.CancelScope(deadline=self._planned) as self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            late = now - self._planned
            if late > STALL:
                # Who was not listening cannot blame anybody for silence: everyone gets that time again.
                for link in self._links.values():
                    link.session.pulse.excuse(late, now)
            # The readers have their turn first: what came while this program was busy, or stopped, is life.
            await trio.lowlevel.checkpoint()
            self._check_due(now)
            self._planned = self._heap[0][0] if self._heap else math.inf

    def _check_due(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, number = heappop(self._heap)
            link = self._links.get(number)
            if link is not None:
                due = self._check(link, now)
                if due is not None:
                    heappush(self._heap, (due, number))

    def _check(self, link: Link, now: float) -> float | None:
        """When to check this link again; never when it is lost."""
        try:
            due = link.session.check(now)
            link.flush()
        except ConnectionLost as error:
            link.lose(error)
            return None
        except Exception:
            # As in Connection.run_link: a bug met on one link must not end the others.
            logger.exception("internal error in a heartbeat")
            link.fail(ConnectionLost("internal error, see the log"))
            return None
        return due
