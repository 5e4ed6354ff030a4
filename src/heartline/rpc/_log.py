"""What the log says of the methods of an endpoint: that one raised, or that it held up everything else."""

from __future__ import annotations

import logging
from functools import partial

import trio

from heartline._summaries import Summary
from heartline.link import current

__all__ = ["STALL", "MethodLog"]

logger = logging.getLogger("heartline.rpc")

STALL = 0.5
"""Seconds that a sync method may run in the event loop before that is logged. Meanwhile nobody is served, and
no heartbeat is sent; this is far above what a busy machine adds to a method that belongs there."""


class MethodLog:
    """The lines about one method of one endpoint; callers that make many of them share a summary."""

    __slots__ = ("_name", "_raised", "_stalls")

    def __init__(self, name: str) -> None:
        self._name = name
        self._raised: Summary | None = None
        self._stalls: Summary | None = None

    def raised(self, kind: str, error: BaseException) -> None:
        """Log that the method raised, with the traceback."""
        if self._raised is None:
            write = partial(logger.warning, f"{_literal(self._name)} raised %d more in %s: %s")
            self._raised = Summary(current.get().setup.nursery, write)
        log = logger.warning if self._raised.admit(kind) else logger.debug
        log("%s raised %s", self._name, kind, exc_info=error)

    @trio.lowlevel.enable_ki_protection  # unlike the code that calls it, and the method
    def stalled(self, seconds: float) -> None:
        """Log that the method kept the event loop to itself for so long."""
        if self._stalls is None:
            write = partial(
                logger.warning, f"{_literal(self._name)} blocked the event loop %d more in %s: %s"
            )
            self._stalls = Summary(current.get().setup.nursery, write)
        log = logger.warning if self._stalls.admit(f"times over {STALL:g} s") else logger.debug
        log(
            "%s blocked the event loop for %.1f s: nobody was served meanwhile; give it "
            "@heartline.method(thread=True)",
            self._name,
            seconds,
        )


def _literal(text: str) -> str:
    return text.replace("%", "%%")
