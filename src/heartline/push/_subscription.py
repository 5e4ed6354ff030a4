"""The subscriber's side: an iterator of updates that outlives its links.

It keeps its place: the last offset received and the last one handled. After a loss it subscribes again from
there, so that every update comes once and in order, or a :class:`~heartline.HistoryGap` says that it cannot.
An update counts as handled, and is confirmed, when the next one is asked for.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from heartline.connection import Connection
from heartline.errors import (
    CallInterrupted,
    ConfigurationError,
    HistoryGap,
    LocalProtocolError,
    RemoteProtocolError,
    SlowConsumer,
)
from heartline.push._types import Position, Since, SlowPolicy, Update
from heartline.push._wire import NOTICE, decode_update, parse_head, parse_notice
from heartline.wire import Frame

if TYPE_CHECKING:
    from heartline.push._part import PushLayer

__all__ = ["Subscription"]

CONFIRM_EVERY = 16
"""Updates handled between confirmations while more are waiting; the last one is confirmed at once."""

MAX_WAITING = 1024
"""Updates that a publisher may send without a confirmation before it counts as broken; ours sends 256."""


class Subscription:
    """A subscription to a topic: an async context manager and iterator of :class:`Update`.

    Iterating raises :class:`HistoryGap` when updates were lost for good (iterate on: it continues after the
    newest), :class:`SlowConsumer` when the publisher ended it, and the connection's reason when that is
    closed.
    """

    def __init__(
        self, connection: Connection, push: PushLayer, topic: str, since: Since, policy: Any
    ) -> None:
        self.topic = topic
        self._connection = connection
        self._push = push
        self._policy = SlowPolicy.DROP_OLDEST if policy is None else policy
        if not isinstance(self._policy, SlowPolicy):
            raise ConfigurationError(f"policy must be a heartline.SlowPolicy, not {policy!r}")
        if isinstance(since, Position):
            self._since: Any = [since.epoch, since.offset]
        elif since in (None, "newest", "oldest"):
            self._since = since
        else:
            raise ConfigurationError(f"since must be None, NEWEST, OLDEST or a Position, not {since!r}")
        self._waiting: deque[Frame] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._number: int | None = None
        self._epoch = ""
        self._received = 0
        self._handled = 0
        self._confirmed = 0
        self._ended: str | None = None
        self._entered = False

    @property
    def position(self) -> Position:
        """The place after the last update that was handled: a later subscription can begin there."""
        return Position(self._epoch, self._handled)

    async def __aenter__(self) -> Subscription:
        if self._entered:
            raise LocalProtocolError("a subscription is entered once; make another with subscribe()")
        self._entered = True
        await self._attach()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        number, self._number = self._number, None
        self._ended = "the subscription was left"
        if number is not None:
            self._confirm_handled(number)
            self._push.detach(number)
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Update:
        """The next update; confirms the one before."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._waiting:
                update = self._take()
                if update is not None:
                    return update
                continue
            if self._number is not None:
                self._confirm_handled(self._number)
            if self._ended is not None:
                raise SlowConsumer(f"topic {self.topic!r}: {self._ended}")
            if self._number is None:
                await self._attach()
            else:
                await self._lot.park()

    def _take(self) -> Update | None:
        """The first waiting update, or whatever a notice says."""
        frame = self._waiting.popleft()
        content_id, offset = parse_head(frame)
        if content_id == NOTICE:
            self._take_notice(frame, offset)
            return None
        self._handled = offset - 1
        if self._number is not None and self._handled - self._confirmed >= CONFIRM_EVERY:
            self._confirm_handled(self._number)
        self._handled = offset
        return Update(self.topic, self._epoch, offset, decode_update(frame.payload, frame.flags))

    def _take_notice(self, frame: Frame, offset: int) -> None:
        what = parse_notice(frame.payload)
        if what[0] == "end":
            self._ended = what[1]
            if self._number is not None:
                self._push.detach(self._number)
                self._number = None
            return
        _, newest_offset, payload, flags = what
        newest = None
        if payload is not None:
            newest = Update(self.topic, self._epoch, newest_offset, decode_update(payload, flags))
        self._handled = newest_offset
        raise HistoryGap(self.topic, expected=offset, newest=newest)

    def _confirm_handled(self, number: int) -> None:
        if self._handled > self._confirmed:
            self._confirmed = self._handled
            self._push.confirm(number, self._handled)

    # The connection's side

    async def _attach(self) -> None:
        """Subscribe, or subscribe again after a loss."""
        while True:
            await self._connection.wait_open()
            service = self._connection.service("$push")
            try:
                number, epoch, position = await service.subscribe(self.topic, self._since, self._policy.value)
            except CallInterrupted:
                continue
            break
        if epoch != self._epoch:
            # The first time, or a new life of the topic, of which a notice will tell.
            self._epoch, self._received, self._handled = epoch, position, position
        self._number = number
        self._confirmed = self._handled
        self._push.attach(number, self)
        self._push.confirm(number, self._confirmed)

    def deliver(self, frame: Frame) -> None:
        """Take a frame that arrived."""
        content_id, offset = parse_head(frame)
        if len(self._waiting) >= MAX_WAITING:
            raise RemoteProtocolError(f"more than {MAX_WAITING} unconfirmed updates of topic {self.topic!r}")
        if content_id == NOTICE:
            what = parse_notice(frame.payload)
            if what[0] == "gap":
                self._received = what[1]
        else:
            self._check_order(offset)
            if self._policy is SlowPolicy.KEEP_NEWEST:
                self._waiting.clear()
            self._received = offset
        self._waiting.append(frame)
        self._since = [self._epoch, self._received]
        self._lot.unpark()

    def _check_order(self, offset: int) -> None:
        skips = self._policy is SlowPolicy.KEEP_NEWEST
        if offset <= self._received or (offset != self._received + 1 and not skips):
            raise RemoteProtocolError(
                f"update {offset} of topic {self.topic!r} came after {self._received}, out of order"
            )

    def on_link_end(self) -> None:
        """The number is void; what has arrived stays, and the iterator subscribes again when it is through."""
        self._number = None
        self._since = [self._epoch, self._received]
        self._lot.unpark()
