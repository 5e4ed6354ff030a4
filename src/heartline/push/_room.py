"""Subscriptions of one connection that have something due, and wait for room on the link.

A publisher gives a link only what it has room for (see :attr:`Link.laden`); what is due beyond that waits in
the logs of the topics, where it costs nothing. The link calls once when it has room again, and then the
subscriptions take turns, one update each. Those that cannot go on are never looked through.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from heartline.link import Link

if TYPE_CHECKING:
    from heartline.push._served import Served

__all__ = ["RoomQueue"]

TURNS = 256
"""Updates that are given to a link in one go, about a millisecond; the next write makes room for more."""


class RoomQueue:
    """Whose turn it is when the link has room."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # Not a dict: to take the first one again and again from one leads over all that were taken before.
        self._waiting: OrderedDict[Served, None] | None = None

    def join(self, served: Served, link: Link) -> None:
        """Wait for room on this link, after those that already wait."""
        if self._waiting is None:
            self._waiting = OrderedDict()
        self._waiting[served] = None
        link.on_room = self._take_turns

    def leave(self, served: Served) -> None:
        """It waits no longer, if it does."""
        if self._waiting is not None:
            self._waiting.pop(served, None)

    def clear(self) -> None:
        """The session is over."""
        self._waiting = None

    def _take_turns(self, link: Link) -> None:
        turns = TURNS
        while self._waiting and turns and not link.laden:
            served, _ = self._waiting.popitem(last=False)
            if served.advance(1):
                turns -= 1
                served.topic.changed.unpark_all()
        if self._waiting:
            link.on_room = self._take_turns
