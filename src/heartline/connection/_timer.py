"""One timer for the heartbeats of all links of an endpoint.

A task that sleeps until the earliest link has something due, never a sleeping task per peer.
"""

from __future__ import annotations

import math

import trio

from heartline.connection._link import Link
from heartline.errors import ConnectionLost

__all__ = ["HeartbeatTimer"]


class HeartbeatTimer:
    """Checks every link's heartbeat when it is due."""

    __slots__ = ("_links", "_planned", "_scope")

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._planned = math.inf
        self._scope = trio.CancelScope()

    def add(self, link: Link) -> None:
        """Watch this link from now on."""
        self._links.add(link)
        due = link.session.pulse.next_check
        if due < self._planned:
            self._planned = self._scope.deadline = due

    def discard(self, link: Link) -> None:
        """Watch this link no longer."""
        self._links.discard(link)

    async def run(self) -> None:
        """The timer's task."""
        while True:
            with trio.CancelScope(deadline=self._planned) as self._scope:
                await trio.sleep_forever()
            self._planned = math.inf
            now = trio.current_time()
            self._planned = min((self._check(link, now) for link in list(self._links)), default=math.inf)

    def _check(self, link: Link, now: float) -> float:
        try:
            due = link.session.check(now)
        except ConnectionLost as error:
            link.fail(error)
            return math.inf
        link.flush()
        return due
