"""A log line for each refused handshake, and summaries in a flood."""

from __future__ import annotations

import logging
from functools import partial

import trio

from heartline._summaries import Summary
from heartline.observe import Hooks
from heartline.session import CloseCode
from heartline.wire.text import printable

__all__ = ["Refusals", "Refused"]

logger = logging.getLogger("heartline.server")

REASON_SIZE = 200
"""Characters of a reason in a line."""


class Refused(Exception):
    """A peer is not let in; with ``code`` ``None`` it is told nothing.

    If an error on this side is to blame, that is the ``__cause__``. ``kind`` is what a summary calls it.
    """

    def __init__(self, code: CloseCode | None, reason: str, *, kind: str = "broken off") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.kind: str = kind if code is None else code.name


class Refusals:
    """The refusals of a server: all are counted, and a bounded number is logged."""

    def __init__(self, nursery: trio.Nursery, hooks: Hooks) -> None:
        self.count: int = 0
        self._tell = hooks.tell("peer_refused")
        self._refused = Summary(nursery, partial(logger.info, "refused %d more in %s: %s"))
        # Separate, so that no flood hides the traceback of a bug.
        self._failed = Summary(nursery, partial(logger.error, "refused %d more in %s for errors here: %s"))

    def record(self, place: str, refused: Refused) -> None:
        """Count and log that the peer at this place was refused; one that left by itself is only counted."""
        self.count += 1
        if not refused.reason:
            return
        if self._tell is not None:
            self._tell(place, refused.code, refused.reason)
        kind = refused.kind
        blame = refused.__cause__
        if blame is None:
            log = logger.info if self._refused.admit(kind) else logger.debug
        else:
            log = partial(logger.error, exc_info=blame) if self._failed.admit(kind) else logger.debug
        log("refused %s: %s", printable(place), printable(refused.reason, REASON_SIZE))
