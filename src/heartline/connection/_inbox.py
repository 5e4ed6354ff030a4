"""Messages of the default channel that nobody has read yet.

They wait in the inbox of their connection. Readers of the connection take them from there, and so do readers
of a server's messages, for which the server lists the inboxes that have some. Messages are never moved: the
first reader that asks gets the next one, and once a connection has a reader of its own, only that one does.

Messages that connections leave behind when they end wait for the server's reader too, and are bounded:
otherwise peers that come, send a window and go would fill the memory, because they hold no place.
"""

from __future__ import annotations

import logging
from collections import deque

import trio

from heartline.link import Core, Link
from heartline.wire import Frame, Limits

__all__ = ["Inbox", "SharedInbox"]

logger = logging.getLogger("heartline.connection")


MESSAGE_SIZE = 160
"""Bytes that a message takes in memory besides its payload."""


class SharedInbox:
    """The inboxes of a server that have messages; they take turns in front of a reader of all of them."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.lost_buffer
        self._left: dict[Inbox, int] = {}
        """Those of connections that have ended, in the order of their ends, with the bytes that they held."""
        self._left_size = 0
        self.filled: dict[Inbox, None] = {}
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.has_reader: bool = False
        """Whether anybody reads them. If not, the unread messages of a connection are dropped at its end."""
        self.ended: bool = False

    def take(self) -> tuple[Core, Frame] | None:
        """Take the next message, with the core of its connection; ``None`` when there is none."""
        if not self.filled:
            return None
        inbox = next(iter(self.filled))
        del self.filled[inbox]
        frame = inbox.take()
        if inbox.frames:
            self.filled[inbox] = None
        else:
            self._discard(inbox)
        return inbox.core, frame

    def keep_left(self, inbox: Inbox) -> None:
        """A connection has ended: the reader gets what it left, if there is a reader and room for it."""
        if not self.has_reader:
            self.filled.pop(inbox, None)
        if inbox not in self.filled:
            return
        size = self._left[inbox] = sum(len(frame.payload) + MESSAGE_SIZE for frame, _ in inbox.frames)
        self._left_size += size
        while self._left_size > self._most:
            first = next(iter(self._left))
            log = logger.info if first.core.setup.comings.admit("left unread") else logger.debug
            log("%s: its %d unread messages are dropped", first.core, len(first.frames))
            first.frames.clear()
            self.forget(first)

    def forget(self, inbox: Inbox) -> None:
        """The messages of this inbox are not for the server's reader."""
        self.filled.pop(inbox, None)
        self._discard(inbox)

    def _discard(self, inbox: Inbox) -> None:
        self._left_size -= self._left.pop(inbox, 0)

    def end(self) -> None:
        """End the iterators: the server has ended."""
        self.ended = True
        self.changed.unpark_all()


class Inbox:
    """The unread messages of one connection."""

    __slots__ = ("_shared", "arrived", "core", "frames", "has_reader")

    def __init__(self, core: Core, shared: SharedInbox | None) -> None:
        self.core: Core = core
        self.frames: deque[tuple[Frame, Link | None]] = deque()
        self.has_reader: bool = False
        """Whether messages are for readers of this connection alone."""
        self.arrived: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self._shared = shared

    def put(self, frame: Frame) -> None:
        """Add a message that has arrived."""
        self.frames.append((frame, self.core.link))
        self._wake_reader()

    def put_back(self, frame: Frame) -> None:
        """Return a message whose reader was cancelled: it is the next one again."""
        self.frames.appendleft((frame, None))  # None: its sender has had the credit for it
        self._wake_reader()

    def _wake_reader(self) -> None:
        self.arrived.unpark()
        if self._shared is not None and not self.has_reader:
            self._shared.filled[self] = None
            self._shared.changed.unpark()

    def keep_for_own(self) -> None:
        """Keep messages for readers of this connection from now on."""
        self.has_reader = True
        if self._shared is not None:
            self._shared.forget(self)

    def take(self) -> Frame:
        """Take the oldest message, and let its sender send as much again."""
        frame, link = self.frames.popleft()
        if link is not None and link is self.core.link:  # a new session began with a whole window
            link.give_credit(0, len(frame.payload))
        return frame

    def end(self) -> None:
        """Let readers get what is left, and then see that the connection has ended."""
        self.arrived.unpark_all()
        if self._shared is not None:
            self._shared.keep_left(self)
