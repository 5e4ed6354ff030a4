"""Messages of the default channel that nobody has read yet.

They wait in an inbox of their connection. Readers of the connection take them from there; so do those of a
server, which is told of each inbox that has something. Nothing is ever moved: a message is for whoever asks
first, and from the moment a connection has a reader of its own its messages are for that.
"""

from __future__ import annotations

from collections import deque

import trio

from heartline.link import Core, Link
from heartline.wire import Frame

__all__ = ["Inbox", "SharedInbox"]


class SharedInbox:
    """The inboxes of a server that have messages, for a reader of all of them: they take turns."""

    def __init__(self) -> None:
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
        return inbox.core, frame

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
            self._shared.filled.pop(self, None)

    def take(self) -> Frame:
        """The oldest message; its sender may send as much again."""
        frame, link = self.frames.popleft()
        if link is not None and link is self.core.link:  # a new session began with a whole window
            link.give_credit(0, len(frame.payload))
        return frame

    def end(self) -> None:
        """The connection has ended: its readers get what is here, and then see it."""
        self.arrived.unpark_all()
        if self._shared is not None and not self._shared.has_reader:
            self._shared.filled.pop(self, None)
