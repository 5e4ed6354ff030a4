"""The push layer of one connection: what is served to the peer, and what is subscribed at it.

Subscribing is a call to the built-in service ``$push``; it answers with the number under which updates will
come and the position they follow. The subscriber then confirms that position, which starts the flow: no
update can arrive before its number is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heartline.connection import Connection
from heartline.errors import HeartlineError, InvalidArguments, Outcome, RemoteProtocolError
from heartline.push._log import TopicLog
from heartline.push._publisher import Publisher, Served
from heartline.push._subscription import Subscription
from heartline.push._types import SlowPolicy
from heartline.push._wire import CONFIRM, LEAVE
from heartline.wire import Frame, FrameType

__all__ = ["PushLayer", "make_push"]


class PushLayer:
    """The push part of a connection; both tables are made when they are first needed."""

    __slots__ = ("_connection", "_served", "_subscribed", "publisher")

    def __init__(self, publisher: Publisher | None, connection: Connection) -> None:
        self.publisher = publisher
        self._connection = connection
        self._served: dict[int, Served] = {}
        self._subscribed: dict[int, Subscription] = {}

    # The subscriber's side

    def subscribe(self, topic: str, since: Any, policy: Any) -> Subscription:
        """A subscription, to be entered."""
        return Subscription(self._connection, self, topic, since, policy)

    def attach(self, number: int, subscription: Subscription) -> None:
        """Updates with this number go to this subscription."""
        if number in self._subscribed:
            raise RemoteProtocolError(f"the peer gave the number {number} to two subscriptions")
        self._subscribed[number] = subscription

    def detach(self, number: int) -> None:
        """The subscription is over; updates that are under way are skipped."""
        if self._subscribed.pop(number, None) is not None and self._connection.link is not None:
            self.confirm(number, LEAVE)

    def confirm(self, number: int, offset: int) -> None:
        """Tell the publisher that everything up to this offset was handled."""
        self._connection.post(FrameType.CONFIRM, 0, number, CONFIRM.pack(offset))

    # The publisher's side

    def serve(self, topic_name: str, since: Any, policy: SlowPolicy) -> list[Any]:
        """Begin a subscription of the peer: its number, the topic's epoch and the position before it."""
        if self.publisher is None:
            raise InvalidArguments("this peer publishes nothing", outcome=Outcome.COMPLETED)
        topic = self.publisher.topic(topic_name)
        log = topic.log
        number = log.number
        while number in self._served:
            number = self.publisher.next_number()
        position, gap = _begin(since, log, policy)
        served = Served(topic, self._connection, number, position, policy, gap)
        self._served[number] = served
        topic.served[served] = None
        return [number, log.epoch, position]

    def on_frame(self, frame: Frame) -> None:
        """Handle a PUSH or CONFIRM."""
        if frame.type == FrameType.PUSH:
            subscription = self._subscribed.get(frame.id)
            if subscription is not None:  # otherwise it was left, and the update crossed the goodbye
                subscription.deliver(frame)
        elif frame.type == FrameType.CONFIRM:
            self._on_confirm(frame)
        else:
            raise RemoteProtocolError(f"unknown frame type 0x{frame.type:02x} of the push family")

    def _on_confirm(self, frame: Frame) -> None:
        if len(frame.payload) != CONFIRM.size:
            raise RemoteProtocolError(f"CONFIRM of {len(frame.payload)} bytes")
        (offset,) = CONFIRM.unpack(frame.payload)
        served = self._served.get(frame.id)
        if served is None:
            return  # it was left, and is confirmed after that by a peer that does not know yet
        if offset == LEAVE:
            del self._served[frame.id]
            served.topic.leave(served)
            return
        if not served.flowing and offset < served.cursor:
            served.flowing = True  # the rest up to the cursor was received before, but not handled yet
        elif not served.confirmed <= offset < served.cursor:
            raise RemoteProtocolError(
                f"CONFIRM of update {offset}, after {served.confirmed} and of {served.cursor - 1} sent"
            )
        served.confirmed = offset
        served.advance()
        served.topic.note(served)

    # Links

    def on_link_open(self) -> None:
        """Subscriptions of a connection that has a new link find their place again by themselves."""

    def on_link_end(self, reason: HeartlineError, unsent: Callable[[int], set[int]]) -> None:
        """Everybody loses the number; subscriptions remember where they are."""
        for served in self._served.values():
            served.topic.leave(served)
        self._served.clear()
        subscriptions, self._subscribed = self._subscribed, {}
        for subscription in subscriptions.values():
            subscription.on_link_end()


def make_push(publisher: Publisher | None, connection: Connection) -> PushLayer:
    """The push layer of a connection; ``publisher`` is ``None`` at a client."""
    return PushLayer(publisher, connection)


def _begin(since: Any, log: TopicLog, policy: SlowPolicy) -> tuple[int, int | None]:
    """The position before the first update to send, and the offset that is lost if there is a gap."""
    newest = max(log.first - 1, log.last - 1)
    match since:
        case None:
            return log.last, None
        case "newest":
            return newest, None
        case "oldest":
            return log.first - 1, None
        case [str(epoch), int(offset)] if offset >= 0:
            if epoch == log.epoch:
                return min(offset, log.last), None
            # The history began anew: an offset of the other life means nothing here.
            return (newest, None) if policy is SlowPolicy.KEEP_NEWEST else (log.last, offset + 1)
    raise InvalidArguments(
        f"since must be null, 'newest', 'oldest' or [epoch, offset], not {since!r:.80}",
        outcome=Outcome.COMPLETED,
    )
