"""A log line for each refused handshake, and one line for many of them in a flood."""

from __future__ import annotations

import logging
from collections import Counter

import trio

from heartline.observe import Hooks
from heartline.session import CloseCode
from heartline.wire.text import printable

__all__ = ["Refusals", "Refused"]

logger = logging.getLogger("heartline.server")

LINES = 20
"""Refusals in one period that get a line each: all of them on a usual day, and enough in a flood to see what
kind of flood it is."""

PERIOD = 60.0
"""Seconds after which the others are summed up in one line: a flood costs a log about 20 lines a minute."""

REASON_SIZE = 200
"""Characters of a reason in a line."""


class Refused(Exception):
    """A peer is not let in; with ``code`` ``None`` it is told nothing.

    If an error on this side is to blame, that is the ``__cause__``.
    """

    def __init__(self, code: CloseCode | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refusals:
    """The refusals of a server: all are counted, and a bounded number is logged."""

    def __init__(self, nursery: trio.Nursery, hooks: Hooks) -> None:
        self.count: int = 0
        self._nursery = nursery
        self._tell = hooks.tell("peer_refused")
        self._since = -PERIOD
        self._lines = 0
        self._unlogged: Counter[str] = Counter()

    def record(self, place: str, refused: Refused) -> None:
        """Count and log that the peer at this place was refused; one that left by itself is only counted."""
        self.count += 1
        if not refused.reason:
            return
        if self._tell is not None:
            self._tell(place, refused.code, refused.reason)
        now = trio.current_time()
        if now >= self._since + PERIOD and not self._unlogged:
            self._since, self._lines = now, 0
        if self._lines < LINES:
            self._lines += 1
            blame = refused.__cause__
            level = logging.INFO if blame is None else logging.ERROR
            reason = printable(refused.reason, REASON_SIZE)
            logger.log(level, "refused %s: %s", printable(place), reason, exc_info=blame)
            return
        if not self._unlogged:
            self._nursery.start_soon(self._sum_up)
        self._unlogged[_name(refused.code)] += 1

    async def _sum_up(self) -> None:
        """Log the refusals without a line of their own when the period is over, or the server ends."""
        try:
            await trio.sleep_until(self._since + PERIOD)
        finally:
            kinds = ", ".join(f"{count} {name}" for name, count in self._unlogged.most_common())
            logger.info("refused %d more: %s", self._unlogged.total(), kinds)
            self._unlogged.clear()


def _name(code: CloseCode | None) -> str:
    return "for other reasons" if code is None else code.name
