"""The goodbye: both sides say it, and the side that began ends the link.

The side that begins says it at once, waits for the other's goodbye, and then ends the link. The other side
answers when it is ready, and reads on until that end. So everything that either side had sent before arrives,
however long it is. With a drain both sides let calls in progress end first. At the latest the link ends
``GOODBYE_GRACE`` seconds after the drain.
"""

from __future__ import annotations

import trio

from heartline.link._link import Link
from heartline.session import CloseCode, State

__all__ = ["GOODBYE_GRACE", "Goodbye", "say_why"]

GOODBYE_GRACE = 1.0
"""Seconds for the peer to take a goodbye and end the stream; a healthy one needs a round trip."""


class Goodbye:
    """A goodbye that is under way: which sides have said it, and when the link may end."""

    __slots__ = ("_by_peer", "_heard", "_link", "_patient", "_said")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._said = self._heard = self._by_peer = self._patient = False

    def say(self, code: int, reason: str, drain: float) -> None:
        """Begin the goodbye from this side."""
        self._link.session.go_away(code, reason, drain=drain)
        self._said, self._by_peer = True, False
        self._link.flush()
        self._bound(drain)

    def hear(self, drain: float) -> bool:
        """Note the peer's goodbye; tells whether it begins one, and does not answer or cross ours."""
        self._heard = True
        if self._said and not self._by_peer:
            return False
        self._by_peer = True
        self._bound(drain)
        return True

    def _bound(self, drain: float) -> None:
        self._patient = drain > 0
        scope = self._link.scope
        scope.deadline = min(scope.deadline, trio.current_time() + drain + GOODBYE_GRACE)

    def go_on(self, *, idle: bool) -> None:
        """Answer, or end the link, if it is time; ``idle`` says that no call is in progress."""
        if self._patient and not idle:
            return
        if not self._said:
            self._said = True
            self._link.session.go_away(CloseCode.NORMAL, "")
            self._link.nudge()
        elif self._heard and not self._by_peer:
            self._link.scope.cancel()


def say_why(link: Link, code: int, reason: str) -> None:
    """Make a goodbye with the reason the last thing that is written."""
    if link.session.state in (State.OPEN, State.LEAVING):
        link.session.go_away(code, reason)
