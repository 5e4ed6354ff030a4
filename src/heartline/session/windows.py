"""The receiver's side of credit: how much the peer may still send on each channel.

A direction of a channel lasts from its OPEN, by either side, to the CLOSE or RESET of who sends in it; that
of channel 0 always lasts. The peer's direction begins with a window of ``Limits.window`` bytes. Each message
takes its length and ``MESSAGE_COST`` from it, and when the reader has taken the message they are given back
(the sender's side is in :mod:`heartline.session.outbox`). Told is the sum of what was given back so far, once
for however many messages, and again on the next link: so a CREDIT that was lost does no harm.
"""

from __future__ import annotations

from heartline.errors import RemoteProtocolError
from heartline.session.outbox import MESSAGE_COST
from heartline.session.states import Role
from heartline.wire import Frame, FrameType

__all__ = ["Windows"]


class Windows:
    """The peer's directions of channels, and their credit."""

    __slots__ = ("_due", "_left", "_odd", "_returned", "_window")

    def __init__(self, role: Role, window: int) -> None:
        self._odd = role is Role.CLIENT
        self._window = window
        self._left: dict[int, int] = {0: window}
        self._returned: dict[int, int] = {}
        # Channels on which there is something to tell; None costs an idle session nothing.
        self._due: dict[int, None] | None = None

    def is_ours(self, channel: int) -> bool:
        """Clients open channels with odd numbers, servers with even ones."""
        return channel % 2 == self._odd

    def open(self, channel: int) -> None:
        """The peer may send on a channel from now on."""
        self._left[channel] = self._window

    def receive(self, frame: Frame) -> bool:
        """Take a lane frame; tells whether it ends the peer's direction, or raises RemoteProtocolError.

        It is called frame by frame: the events of a whole read come to the caller at once.
        """
        channel = frame.channel
        left = self._left.get(channel)
        if frame.type == FrameType.OPEN:
            if left is not None or self.is_ours(channel):
                raise RemoteProtocolError(f"the peer cannot open channel {channel}")
            self.open(channel)
        elif left is None:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} on channel {channel}, which is not open")
        elif frame.type == FrameType.DATA:
            if left <= 0:
                raise RemoteProtocolError(f"DATA on channel {channel} without credit (Limits.window)")
            self._left[channel] = left - len(frame.payload) - MESSAGE_COST
        elif not channel:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} on channel 0, which is always open")
        else:
            del self._left[channel]
            self._returned.pop(channel, None)
            if self._due:
                self._due.pop(channel, None)
            return True
        return False

    def consume(self, channel: int, length: int) -> None:
        """The reader took a message of this length; void where the peer's direction has ended."""
        if channel in self._left:
            credit = length + MESSAGE_COST
            self._left[channel] += credit
            self._returned[channel] = self._returned.get(channel, 0) + credit
            if self._due is None:
                self._due = {}
            self._due[channel] = None

    def take_due(self) -> list[tuple[int, int]]:
        """What is to be told now: channels, and the bytes that were given back on each so far."""
        due, self._due = self._due, None
        return [(channel, self._returned[channel]) for channel in due or ()]

    def tell_again(self) -> bool:
        """What was told may have been lost with its link; whether there is any of it."""
        self._due = dict.fromkeys(self._returned)
        return bool(self._due)
