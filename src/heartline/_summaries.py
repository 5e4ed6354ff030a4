"""Lines of a log that peers cause: one each on a usual day, summaries in a flood.

Whatever peers do, the log stays a page that a person can read: a :class:`Summary` bounds what it costs in a
day to a few hundred lines, and a lasting flood to one line an hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio

__all__ = ["LINES", "Summary", "Write"]

LINES = 20
"""Lines that may follow each other at once: enough in a flood to see what kind of flood it is."""

REFILL = 180.0
"""Seconds after which one more line may be written: 20 an hour, as many as somebody reads."""

ENOUGH = 5
"""Lines that have to be in the bucket before single lines begin again. With fewer, events that come a little
too often would be summed up one by one."""

FIRST_PERIOD = 60.0
"""Seconds until the first summary of a flood: whoever watches need not wait long for the numbers."""

LAST_PERIOD = 3600.0
"""Seconds between the summaries of a flood that does not end. The periods double until then."""

Write = Callable[[int, str, str], None]
"""``write(count, time, kinds)`` logs a summary: ``write(40, "1 min", "38 lost, 2 let in")``."""


class Summary:
    """Decides which lines of one sort are written, and sums up the others.

    Lines come out of a bucket that holds :data:`LINES` and is refilled slowly. When it is empty there are
    summaries alone, which use up the bucket too, until enough is in it again.
    """

    def __init__(self, nursery: trio.Nursery, write: Write) -> None:
        self._nursery = nursery
        self._write = write
        self._lines: float = LINES
        self._refilled = float("-inf")
        self._summing_up = False
        self._since = 0.0
        self._unwritten: Counter[str] = Counter()

    def admit(self, kind: str) -> bool:
        """Whether this one gets a line of its own; if not it is counted, under this name of its kind."""
        if not self._summing_up:
            self._refill()
            if self._lines >= 1:
                self._lines -= 1
                return True
            try:
                self._nursery.start_soon(self._sum_up)
            except RuntimeError:  # the endpoint has ended, and is used all the same: nobody reads its sums
                return False
            self._summing_up = True
            self._since = trio.current_time()
        self._unwritten[kind] += 1
        return False

    def _refill(self) -> None:
        now = trio.current_time()
        self._lines = min(LINES, self._lines + (now - self._refilled) / REFILL)
        self._refilled = now

    async def _sum_up(self) -> None:
        """Log what got no line at the end of each period, and when the endpoint ends."""
        period = FIRST_PERIOD
        try:
            while True:
                await trio.sleep(period)
                self._refill()
                self._lines = max(0.0, self._lines - self._unwritten.total())
                self._flush()
                if self._lines >= ENOUGH:
                    return
                period = min(2 * period, LAST_PERIOD)
        finally:
            self._flush()
            self._summing_up = False

    def _flush(self) -> None:
        now = trio.current_time()
        if self._unwritten:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._unwritten.most_common())
            self._write(self._unwritten.total(), _in_words(now - self._since), kinds)
        self._unwritten.clear()
        self._since = now


def _in_words(seconds: float) -> str:
    return f"{max(1.0, seconds):.0f} s" if seconds < FIRST_PERIOD else f"{seconds / 60:.0f} min"
