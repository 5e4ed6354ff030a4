"""One subscription as its publisher sees it: a cursor into the topic's log, and a window."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from heartline.errors import LocalProtocolError, PushError, RemoteProtocolError
from heartline.link import Core, Link
from heartline.push._log import Entry
from heartline.push._receipt import Who
from heartline.push._room import RoomQueue
from heartline.push._types import SlowPolicy
from heartline.push._wire import encode_notice
from heartline.wire import FrameType
from heartline.wire.payload import ItemCount

if TYPE_CHECKING:
    from heartline.push._topic import Topic

__all__ = ["WINDOW_COUNT", "WINDOW_SIZE", "Served"]

WINDOW_COUNT = 256
"""Updates sent to a subscriber that it has not confirmed: what joins well in one write."""

WINDOW_SIZE = 1024 * 1024
"""Bytes of such updates (one is always sent): what a subscriber's link and buffer hold of this topic."""


class Served:
    """One subscription as its publisher sees it: a cursor."""

    __slots__ = (
        "_ended",
        "_gap",
        "_in_flight",
        "_room",
        "_shared",
        "_state_offset",
        "_state_size",
        "_stateful",
        "confirmed",
        "core",
        "cursor",
        "flowing",
        "number",
        "policy",
        "start",
        "topic",
        "who",
    )

    def __init__(
        self,
        topic: Topic,
        core: Core,
        room: RoomQueue,
        number: int,
        *,
        key: int,
        policy: SlowPolicy,
        position: int,
        start: int,
        gap: int | None,
        stateful: bool,
    ) -> None:
        self.topic: Topic = topic
        self.core: Core = core
        self.number: int = number
        self.who: Who = (core.id, key)
        self.policy: SlowPolicy = policy
        self.cursor: int = position + 1
        """The next offset to send."""
        self.confirmed: int = position
        self.start: int = start
        """It never had the updates up to this offset, so confirming them counts for no receipt."""
        self.flowing: bool = False
        """Between the first confirmation, which says that the subscriber is ready, and the end."""
        self._room = room
        self._gap = gap
        """The offset that is lost at the beginning, until the subscriber was told."""
        self._stateful = stateful
        """The state is sent instead of what is lost."""
        self._shared = number == topic.log.number
        self._in_flight = 0
        """Bytes that were sent and not confirmed, at most."""
        self._state_offset = 0
        self._state_size = 0
        """Those of a state among them, which is in no log."""
        self._ended = False

    # The window

    def advance(self, most: float = inf) -> bool:
        """Send what is due and has room in the window and on the link, at most so many updates.

        What is due beyond them, or has no room on the link, waits for its turn there. Tells whether anything
        was sent.
        """
        link = self.core.link
        if link is None or not self.flowing:
            return False
        log = self.topic.log
        last = log.last
        before = self.cursor
        if self._gap is not None:
            if link.laden:
                self._room.join(self, link)
                return False
            gap, self._gap = self._gap, None
            self._bridge(gap)
            if not self.flowing:
                return False
        while self.cursor <= last and (
            not self._in_flight
            or (self._in_flight < WINDOW_SIZE and self.cursor - self.confirmed <= WINDOW_COUNT)
        ):
            if not most or link.laden:
                self._room.join(self, link)
                break
            most -= 1
            entry = log.get(self.cursor)
            if entry is None or (self.cursor < last and self.policy == "keep newest"):
                # What is due is gone, or not wanted any more. The newest goes in the same turn, whatever the
                # window says by now: there is always something under way whose confirmation opens it again.
                entry = self._skip()
                if entry is None:
                    break
            if (self._shared and entry.frame and link.put_update(entry.frame)) or self._send(
                link, entry.payload, entry.flags, entry.items
            ):
                self.cursor = entry.offset + 1
                self._in_flight += entry.length
            else:
                self._lose(entry)
                if not self.flowing:
                    break
        if self.cursor == before:
            return False
        self.topic.flusher.mark(link)
        return True

    def confirm(self, offset: int) -> None:
        """Everything up to this offset was handled; raises :class:`RemoteProtocolError`."""
        if self._ended:
            return  # it crossed the notice of the end
        sent = self.cursor - 1
        if not (self.confirmed <= offset <= sent if self.flowing else offset == sent):
            raise RemoteProtocolError(
                f"CONFIRM of update {offset}, after {self.confirmed} and of {sent} sent"
            )
        before = self.confirmed
        self.confirmed = offset
        if not self.flowing:
            self.flowing = True
            before = self.start  # it may have handled more than it could confirm on the link before
        else:
            self._shrink(offset)
        self.topic.confirmed(self, before)
        self.advance()

    def _shrink(self, offset: int) -> None:
        """What is still under way after this confirmation."""
        if offset >= self._state_offset:
            self._state_size = 0
        if offset == self.cursor - 1:
            self._in_flight = 0
            return
        log = self.topic.log
        entry = log.get(offset)
        if entry is not None:  # otherwise it left the history, and its place in bytes is not known
            behind = log.total_before(self.cursor) - entry.total
            self._in_flight = min(self._in_flight, behind + self._state_size)

    def _skip(self) -> Entry | None:
        """Move on to the newest update, as the policy says; ``None`` if there is nothing to send."""
        log = self.topic.log
        newest = log.newest
        following = log.last + (newest is None or self._stateful)
        self.topic.skipped += following - self.cursor
        if self.policy == "disconnect":
            self.end("slow", f"the subscriber did not keep up: update {self.cursor} is no longer retained")
            return None
        if self.policy != "keep newest":
            self._bridge(self.cursor)
            return None if self._stateful else newest
        self.cursor = following
        return newest

    # What is sent

    def _send(self, link: Link, payload: bytes, flags: int, items: ItemCount | None) -> bool:
        """Send an update the long way; ``False`` when the peer would refuse it for its size."""
        if items is not None and items.exceeds(link.peer_limits.items):
            return False
        try:
            link.put(FrameType.PUSH, 0, self.number, payload, flags)
        except LocalProtocolError:
            return False
        return True

    def _lose(self, entry: Entry) -> None:
        """The peer accepts no message of this size: it is told what it loses, and goes on after it."""
        self.topic.lose(self, entry)
        if self._stateful:
            self._send_state()
        else:
            self._notice(entry.offset, "gap", entry.offset, False)
            self.cursor = entry.offset + 1

    def _bridge(self, due: int) -> None:
        """Tell what is lost, or send the state instead; the cursor moves on."""
        if self._stateful:
            self._send_state()
            return
        log = self.topic.log
        self.cursor = log.last + (log.newest is None)
        self._notice(due, "gap", self.cursor - 1, log.newest is not None)

    def _send_state(self) -> None:
        """Send the state after the newest update, whatever the window says: it is what opens it again."""
        link, state = self.core.link, self.topic.state
        if link is None or state is None:  # without a state nothing like this is served
            return
        try:
            saved, (payload, items) = state.encode(), state.payload()
        except PushError as error:
            self.end("end", str(error).removeprefix(f"topic {self.topic.name!r}: "))  # which it knows
            return
        self._notice(saved.offset, "snapshot")
        if not self._send(link, payload, saved.flags, items):
            self.end("end", f"the state after update {saved.offset} is larger than it accepts")
            return
        self.cursor = saved.offset + 1
        self._state_offset, self._state_size = saved.offset, len(payload)
        self._in_flight += self._state_size

    def end(self, kind: str, reason: str) -> None:
        """End the subscription from this side."""
        self._notice(0, kind, reason)
        self._ended = True
        self.topic.leave(self, lost=False)

    def _notice(self, offset: int, *what: Any) -> None:
        link = self.core.link
        if link is not None:
            try:
                link.put(FrameType.PUSH, 0, self.number, encode_notice(offset, *what))
            except LocalProtocolError as error:
                link.fail(error)  # its limit of a message is too small even for a notice
            self.topic.flusher.mark(link)
