"""The push layer of one connection: what is served to the peer, and what is subscribed at it.

Subscribing is a call to the built-in service ``$push``; it answers with the number under which updates will
come and the position they follow. The subscriber then confirms that position, which starts the flow: no
update can arrive before its number is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import trio

from heartline.errors import (
    ConfigurationError,
    HeartlineError,
    InvalidArguments,
    Outcome,
    RemoteProtocolError,
)
from heartline.link import Core, Unsent
from heartline.push._following import Following
from heartline.push._log import TopicLog
from heartline.push._publisher import Publisher
from heartline.push._room import RoomQueue
from heartline.push._served import Served
from heartline.push._topic import Topic
from heartline.push._types import SlowPolicy
from heartline.push._wire import LEAVE, OFFSET
from heartline.wire import Frame, FrameType

__all__ = ["Push"]

Subscribe = Callable[[Core, str, Any, str, int], Awaitable[Any]]
"""``subscribe(core, topic, since, policy, key)`` calls the peer; calls are a part of their own."""


class Request:
    """A subscription that the peer has asked for, and that middleware decides on."""

    __slots__ = ("given_up",)

    def __init__(self) -> None:
        self.given_up: bool = False
        """By the peer, or with its session: it must not begin any more."""


class Push:
    """The push part of a connection."""

    __slots__ = (
        "_asked",
        "_core",
        "_requests",
        "_room",
        "_served",
        "_served_by_key",
        "_subscribe",
        "_subscribed",
        "publisher",
    )

    family: ClassVar[int] = FrameType.PUSH >> 4
    idle: ClassVar[bool] = True
    """Subscriptions go on in a later session."""

    def __init__(self, publisher: Publisher, subscribe: Subscribe, core: Core) -> None:
        self.publisher: Publisher = publisher
        """The endpoint's, whose topics the peer may subscribe to."""
        self._subscribe = subscribe
        self._core = core
        self._asked = 0
        """Subscriptions made here so far: the key of the last one."""
        self._room = RoomQueue()
        self._served: dict[int, Served] = {}
        self._served_by_key: dict[int, Served] = {}
        self._requests: dict[int, Request] = {}
        self._subscribed: dict[int, Following] = {}

    @property
    def held(self) -> int:
        """Bytes of updates that the subscriptions here have not given out."""
        return sum(following.waiting_size for following in self._subscribed.values())

    # The subscriber's side

    def next_key(self) -> int:
        """A key for a subscription of this side."""
        self._asked += 1
        return self._asked

    async def ask(self, topic: str, since: Any, policy: str, key: int) -> Any:
        """Call the peer to begin a subscription; raises what calls raise."""
        return await self._subscribe(self._core, topic, since, policy, key)

    def attach(self, number: int, following: Following) -> None:
        """Updates with this number go to this subscription."""
        if number in self._subscribed:
            raise RemoteProtocolError(f"the peer gave the number {number} to two subscriptions")
        self._subscribed[number] = following

    def leave(self, key: int, number: int | None) -> None:
        """The subscription with this key is over; updates that are under way are skipped."""
        if number is not None:
            self._subscribed.pop(number, None)
        if self._core.link is not None:
            self.confirm(key, LEAVE)

    def confirm(self, number: int, offset: int) -> None:
        """Tell the publisher that everything up to this offset was handled."""
        self._core.require_link().put(FrameType.CONFIRM, 0, number, OFFSET.pack(offset))

    # The publisher's side

    def serve(self, topic_name: str, since: Any, policy: SlowPolicy, key: int) -> list[Any]:
        """Begin a subscription of the peer: its number, the topic's epoch and the position before it."""
        most = self._core.setup.limits.subscriptions
        if len(self._served) >= most:
            raise _refusal(f"a connection has {most} subscriptions at most (Limits.subscriptions)")
        if key in self._served_by_key:
            raise _refusal(f"the key {key} is that of another subscription")
        try:
            topic = self.publisher.find(topic_name)
        except ConfigurationError as error:
            raise _refusal(str(error)) from None
        try:
            return self._begin(topic, since, policy, key)
        finally:
            self.publisher.forget(topic)  # unless it is in use, by this subscription at least

    def _begin(self, topic: Topic, since: Any, policy: SlowPolicy, key: int) -> list[Any]:
        if policy not in topic.policies:
            allowed = ", ".join(sorted(map(repr, topic.policies)))
            raise _refusal(f"topic {topic.name!r} does not allow the policy {policy!r}, but {allowed}")
        log = topic.log
        log.trim(trio.current_time())
        position, start, gap, stateful = _place(since, log, policy)
        if stateful:
            _check_state(topic, policy)
        served = Served(
            topic,
            self._core,
            self._room,
            self._number(log),
            key=key,
            policy=policy,
            position=position,
            start=start,
            gap=gap,
            stateful=stateful,
        )
        self._served[served.number] = self._served_by_key[key] = served
        topic.join(served)
        return [served.number, log.epoch, position]

    def _number(self, log: TopicLog) -> int:
        """The topic's own number if it is free in this session, so that updates are encoded once for all."""
        link = self._core.require_link()
        number = log.number
        # A long update of a subscription that was left may still be under way with its number.
        while number in self._served or link.holds(FrameType.PUSH, 0, number):
            number = self.publisher.next_number()
        return number

    @contextmanager
    def request(self, key: int) -> Iterator[Request]:
        """A block in which a subscription of the peer is decided, which the peer may give up meanwhile.

        When the block raises, a subscription that was begun in it is ended.
        """
        if key in self._requests or key in self._served_by_key:
            raise _refusal(f"the key {key} is that of another subscription")
        request = self._requests[key] = Request()
        try:
            yield request
        except BaseException:
            if not request.given_up:
                self._end(key)
            raise
        finally:
            if not request.given_up:
                del self._requests[key]

    def _end(self, key: int) -> None:
        """End what is asked for or served with this key, if there is anything."""
        request = self._requests.pop(key, None)
        if request is not None:
            request.given_up = True
        served = self._served_by_key.pop(key, None)
        if served is not None:
            del self._served[served.number]
            self._room.leave(served)
            served.topic.leave(served, lost=False)

    def on_frame(self, frame: Frame) -> None:
        """Handle a PUSH or CONFIRM."""
        if frame.type == FrameType.PUSH:
            following = self._subscribed.get(frame.id)
            if following is not None:  # otherwise it was left, and the update crossed the goodbye
                following.deliver(frame)
        elif frame.type == FrameType.CONFIRM:
            self._on_confirm(frame)
        else:
            raise RemoteProtocolError(f"unknown frame type 0x{frame.type:02x} of the push family")

    def _on_confirm(self, frame: Frame) -> None:
        if len(frame.payload) != OFFSET.size:
            raise RemoteProtocolError(f"CONFIRM of {len(frame.payload)} bytes")
        (offset,) = OFFSET.unpack(frame.payload)
        if offset == LEAVE:
            self._end(frame.id)  # if there is nothing, the call that would have begun it never came
            return
        served = self._served.get(frame.id)
        if served is None:
            raise RemoteProtocolError(f"CONFIRM of subscription {frame.id}, which does not exist")
        served.confirm(offset)

    # Sessions

    def on_session_end(self, reason: HeartlineError, unsent: Unsent) -> None:
        """Everybody loses the number; subscriptions remember where they are."""
        for served in self._served.values():
            served.topic.leave(served, lost=True)
        self._served.clear()
        self._served_by_key.clear()
        for request in self._requests.values():
            request.given_up = True
        self._requests.clear()
        self._room.clear()
        subscribed, self._subscribed = self._subscribed, {}
        for following in subscribed.values():
            following.on_session_end()


def _refusal(reason: str) -> InvalidArguments:
    return InvalidArguments(reason, outcome=Outcome.COMPLETED)


def _check_state(topic: Topic, policy: SlowPolicy) -> None:
    """Whether a subscription can begin with the topic's state; if that is lost, a notice tells it."""
    if topic.state is None:
        raise _refusal(f"topic {topic.name!r} has no snapshot: it was opened without a fold")
    if policy == "keep newest":
        raise _refusal("a state needs every update, and 'keep newest' skips some")


def _place(since: Any, log: TopicLog, policy: SlowPolicy) -> tuple[int, int, int | None, bool]:
    """Where to begin: the position before the first update, the last offset it cannot claim to have had, the
    offset that is lost if there is a gap, and whether the state bridges gaps.
    """
    newest = max(log.first - 1, log.last - 1)
    match since:
        case None:
            return log.last, log.last, None, False
        case "newest":
            return newest, newest, None, False
        case "oldest":
            return log.first - 1, log.first - 1, None, False
        case "snapshot":
            return log.last, log.last, 0, True
        case [str(epoch), int(offset), *rest] if 0 <= offset < LEAVE and rest in ([], ["snapshot"]):
            if epoch == log.epoch and offset <= log.last:
                return offset, 0, None, bool(rest)
            # The history began again: an offset of the other life means nothing here.
            if rest:
                return log.last, log.last, 0, True
            return newest, newest, None if policy == "keep newest" else offset + 1, False
    raise _refusal(
        "since must be null, 'newest', 'oldest', 'snapshot', [epoch, offset] or [epoch, offset, 'snapshot'], "
        f"not {since!r:.80}"
    )
