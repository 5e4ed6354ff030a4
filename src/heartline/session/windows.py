"""The receiver's side of credit: how much the peer may still send on each lane.

The peer's direction of a lane begins with a window of ``Limits.window`` bytes. Each message takes its length
and ``MESSAGE_COST`` from it, and when the reader has taken the message they are given back (the sender's side
is in :mod:`heartline.session.outbox`). The peer is told the sum of what was given back so far, once for any
number of messages, and again on the next link, so a lost CREDIT does no harm.
"""

from __future__ import annotations

from heartline.session.lanes import ENDS, Lane, Lanes
from heartline.session.outbox import MESSAGE_COST
from heartline.wire import Frame, FrameType

__all__ = ["Windows"]


class Windows:
    """The peer's directions of lanes, and their credit."""

    __slots__ = ("_due", "_lanes")

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        # Lanes on which there is something to tell; None costs an idle session nothing.
        self._due: dict[int, Lane] | None = None

    def receive(self, frame: Frame) -> bool:
        """Take a frame of a lane; tells whether it ends the peer's direction, or raises RemoteProtocolError.

        It is called frame by frame: the events of a whole read come to the caller at once.
        """
        kind, channel = frame.type, frame.channel
        if kind == FrameType.DATA:
            lane = self._lanes.receive(kind, channel) if channel else self._lanes.default
            self._lanes.charge(lane, channel, len(frame.payload) + MESSAGE_COST)
            return False
        if kind == FrameType.CANCEL:
            return False  # it names the lane to stay behind the CALL, and may have crossed the lane's end
        self._lanes.receive(kind, channel)
        if kind not in ENDS:
            return False
        if self._due:
            self._due.pop(channel, None)
        return True

    def consume(self, channel: int, length: int) -> None:
        """The reader took a message of this length; where the peer's direction has ended it is not told."""
        lane = self._lanes.find(channel)
        if lane is None:
            return
        credit = length + MESSAGE_COST
        self._lanes.give_back(lane, credit)
        if lane.may_receive:
            lane.returned += credit
            if self._due is None:
                self._due = {}
            self._due[channel] = lane

    def take_due(self) -> list[tuple[int, int]]:
        """What is to be told now: lanes, and the bytes that were given back on each so far."""
        due, self._due = self._due, None
        return [(channel, lane.returned) for channel, lane in due.items()] if due else []

    def tell_again(self) -> bool:
        """What was told may have been lost with its link; whether there is any of it."""
        self._due = {
            channel: lane for channel, lane in self._lanes.all() if lane.returned and lane.may_receive
        }
        return bool(self._due)
