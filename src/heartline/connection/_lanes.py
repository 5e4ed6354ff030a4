"""The lanes of a connection: the default channel and those that were opened."""

from __future__ import annotations

from typing import ClassVar

from heartline.connection._channels import Channels
from heartline.connection._inbox import Inbox, SharedInbox
from heartline.errors import HeartlineError
from heartline.link import Core, Unsent
from heartline.wire import Frame, FrameType

__all__ = ["Lanes"]


class Lanes:
    """The part of a connection that carries messages."""

    __slots__ = ("_channels", "_core", "inbox")

    family: ClassVar[int] = FrameType.DATA >> 4
    idle: ClassVar[bool] = True
    """Always true: a drain waits for calls, but not for channels, which may be open forever."""

    def __init__(self, shared: SharedInbox | None, core: Core) -> None:
        self._core = core
        self._channels: Channels | None = None
        self.inbox: Inbox = Inbox(core, shared)

    @property
    def count(self) -> int:
        """Open channels."""
        return len(self._channels) if self._channels is not None else 0

    @property
    def channels(self) -> Channels:
        """The opened channels of the present session."""
        if self._channels is None:
            self._core.require_link()
            self._channels = Channels(self._core)
        return self._channels

    held: ClassVar[int] = 0
    """The session counts unread messages, for their credit."""

    def on_frame(self, frame: Frame) -> None:
        """Handle a frame of the lane family."""
        if frame.channel:
            self.channels.on_frame(frame)
        else:
            self.inbox.put(frame)

    def on_session_end(self, reason: HeartlineError, unsent: Unsent) -> None:
        """Every channel ends; messages that have arrived can still be read."""
        channels, self._channels = self._channels, None
        if channels is not None:
            channels.on_session_end(reason)
