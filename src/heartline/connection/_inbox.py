"""Messages of the default channel that nobody has read yet.

They wait in an inbox of their connection. Readers of the connection take them from there; so do those of a
server, which is told of each inbox that has something. Nothing is ever moved: a message is for whoever asks
first, and from the moment a connection has a reader of its own its messages are for that.

What connections leave behind when they end waits for the server's reader too, and is bounded: peers that
come, send a window and go would fill the memory otherwise, for they hold no place.
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
"""Bytes that a message takes in memory beside its payload."""


class SharedInbox:
    """The inboxes of a server that have messages, for a reader of all of them: they take turns."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.lost_buffer
        self._left: dict[Inbox, int] = {}
        """Those of connections that have ended, in the order of their ends, with the bytes that they held."""
        self._left_size = 0
        self.filled: dict[Inbox, None] = {}
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.has_reader: bool = False
        """Whether anybody reads them; otherwise the messages of a connection end with it."""
        self.ended: bool = False

    def take(self) -> tuple[Core, Frame] | None:
        """The next message, and its connection; ``None`` when there is none."""
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
        """A connection has ended: what it left is for the reader, if there is one and room for it."""
        if not self.has_reader:
            self.filled.pop(inbox, None)
        if inbox not in self.filled:
            return
        size = self._left[inbox] = sum(len(frame.payload) + MESSAGE_SIZE for frame, _ in inbox.frames)
        self._left_size += size
        while self._left_size > self._most:
            first = next(iter(self._left))
            logger.info("%s: its %d unread messages are dropped", first.core, len(first.frames))
            first.frames.clear()
            self.forget(first)

    def forget(self, inbox: Inbox) -> None:
        """The messages of this one are not for the server's reader."""
        self.filled.pop(inbox, None)
        self._discard(inbox)

    def _discard(self, inbox: Inbox) -> None:
        self._left_size -= self._left.pop(inbox, 0)

    def end(self) -> None:
        """The server has ended."""
        self.ended = True
        self.changed.unpark_all()


class Inbox:
    """The unread messages of one connection."""

    __slots__ = ("_shared", "arrived", "core", "frames", "has_reader")

    def __init__(self, core: Core, shared: SharedInbox | None) -> None:
        self.core: Core = core
        self.frames: deque[tuple[Frame, Link | None]] = deque()
        self.has_reader: bool = False
        """Whether messages are kept for readers of this connection alone."""
        self.arrived: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self._shared = shared

    def put(self, frame: Frame) -> None:
        """A message has arrived."""
        self.frames.append((frame, self.core.link))
        self._wake_reader()

    def put_back(self, frame: Frame) -> None:
        """The reader that took this message gave up: it is the next one again."""
        self.frames.appendleft((frame, None))  # its sender was told already that it may send as much again
        self._wake_reader()

    def _wake_reader(self) -> None:
        self.arrived.unpark()
        if self._shared is not None and not self.has_reader:
            self._shared.filled[self] = None
            self._shared.changed.unpark()

    def keep_for_own(self) -> None:
        """A reader of this connection has come."""
        self.has_reader = True
        if self._shared is not None:
            self._shared.forget(self)

    def take(self) -> Frame:
        """The oldest message; its sender may send as much again."""
        frame, link = self.frames.popleft()
        if link is not None and link is self.core.link:  # a new session began with a whole window
            link.give_credit(0, len(frame.payload))
        return frame

    def end(self) -> None:
        """The connection has ended: its readers get what is here, and then see it."""
        self.arrived.unpark_all()
        if self._shared is not None:
            self._shared.keep_left(self)
