"""Writes for many links at once: what broadcasts and pushes queued.

A sweep costs a system call per link. After a sweep that took ``d`` seconds the flusher rests for ``d``
seconds: a busy publisher gets half of the loop's time, and what it queues meanwhile is joined, one write per
link for many messages. A single message is written at once.
"""

from __future__ import annotations

import logging

import trio

from heartline.errors import ConnectionLost
from heartline.link._link import Link

__all__ = ["Flusher"]

logger = logging.getLogger("heartline.link")

SHORT_SWEEP = 0.0005
"""Seconds; a shorter sweep is followed by no rest, which would cost more than it joins."""

LONGEST_REST = 0.005
"""Seconds; latency that joining may add at most."""

TURN = 128
"""Links that are flushed before other tasks run, about two milliseconds."""


class Flusher:
    """Flushes marked links, in sweeps."""

    __slots__ = ("_links", "_parked")

    def __init__(self) -> None:
        self._links: dict[Link, None] = {}
        self._parked: trio.lowlevel.Task | None = None

    @trio.lowlevel.enable_ki_protection
    def mark(self, link: Link) -> None:
        """Write what this link has queued with the next sweep."""
        self._links[link] = None
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The flusher's task."""
        while True:
            if not self._links:
                await self._park()
            # On a mock clock work takes no time, so tests see no rests, however slow the machine.
            start = trio.current_time()
            await self._sweep()
            duration = trio.current_time() - start
            if duration > SHORT_SWEEP:
                await trio.sleep(min(duration, LONGEST_REST))
            else:
                await trio.lowlevel.checkpoint()

    async def _sweep(self) -> None:
        links, self._links = self._links, {}
        for count, link in enumerate(links, 1):
            try:
                link.flush()
            except Exception:
                # As in serve_link: a bug met on one link must not end the others.
                logger.exception("internal error while writing for many")
                link.fail(ConnectionLost("internal error, see the log"))
            if count % TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
