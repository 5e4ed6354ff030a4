"""The publisher's side: topics, and a cursor for each subscriber.

A publish appends to the log once and then moves every cursor that is not behind; a cursor that is (its window
of unconfirmed updates is full) is moved on by the subscriber's confirmations. So nobody waits for anybody,
unless a subscriber asked for it with :attr:`SlowPolicy.BLOCK`, or the publisher with ``wait``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import trio

from heartline.connection import Connection, Flusher
from heartline.errors import ConfigurationError, ConnectionLost, InvalidArguments, Outcome
from heartline.push._log import Entry, History, TopicLog
from heartline.push._types import SlowPolicy
from heartline.push._wire import encode_notice, encode_update
from heartline.wire import FrameType, Serializer

__all__ = ["Publisher", "Receipt", "Served", "Topic", "TopicStatistics"]

WINDOW_COUNT = 256
"""Updates sent to a subscriber that it has not confirmed: what joins well in one write."""

WINDOW_SIZE = 1024 * 1024
"""Bytes of such updates (one is always sent): what a subscriber's link and buffer hold of this topic."""

MAX_TOPICS = 4096
"""Topics of one publisher, so that subscribing to made-up names cannot fill the memory."""

MAX_TOPIC_NAME = 256
"""Characters in a topic's name."""

Wait = Literal["sent", "confirmed"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is known of a published update when ``publish`` returns.

    ``confirmed`` and ``missing`` hold connection ids. Without ``wait`` both are empty; with ``"sent"``
    ``confirmed`` are those to which the update was handed over.
    """

    topic: str
    epoch: str
    offset: int
    confirmed: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatistics:
    """A snapshot of a topic."""

    subscribers: int
    last_offset: int
    retained: int
    retained_bytes: int
    slowest_lag: int
    """Updates that the slowest subscriber has not confirmed."""
    skipped: int
    """Updates that subscribers lost or skipped, by their policies, so far."""


class Served:
    """One subscription as its publisher sees it: a cursor."""

    __slots__ = ("confirmed", "connection", "cursor", "flowing", "gap", "number", "policy", "topic")

    def __init__(
        self,
        topic: Topic,
        connection: Connection,
        number: int,
        position: int,
        policy: SlowPolicy,
        gap: int | None,
    ) -> None:
        self.topic = topic
        self.connection = connection
        self.number = number
        self.policy = policy
        self.gap = gap
        """The offset that was due when the history began anew, until the subscriber is told."""
        self.cursor = position + 1
        """The next offset to send."""
        self.confirmed = position
        self.flowing = False
        """Set by the first confirmation: the subscriber is ready."""

    def advance(self) -> None:
        """Send what is due and has room in the window."""
        log = self.topic.log
        link = self.connection.link
        if link is None or not self.flowing:
            return
        if self.gap is not None:
            self._tell_gap(self.gap, log)
            self.gap = None
        before = self.cursor
        while self.cursor <= log.last and self._has_room(log):
            entry = log.get(self.cursor)
            if entry is None or (self.policy is SlowPolicy.KEEP_NEWEST and self.cursor < log.last):
                self._jump(log)
                continue
            shared = entry.frame if self.number == log.number else b""
            if not shared or not link.session.outbox.put_encoded(shared):
                link.session.send(FrameType.PUSH, 0, self.number, entry.payload, entry.flags)
            self.cursor += 1
        if self.cursor != before:
            self.topic.flusher.mark(link)

    def _has_room(self, log: TopicLog) -> bool:
        unconfirmed = self.cursor - 1 - self.confirmed
        if unconfirmed <= 0:
            return True
        if unconfirmed >= WINDOW_COUNT:
            return False
        return log.total_before(self.cursor) - log.total_before(self.confirmed + 1) < WINDOW_SIZE

    def _jump(self, log: TopicLog) -> None:
        """The update that is due is gone, or not wanted any more."""
        newest = log.newest
        following = log.last if newest is not None else log.last + 1
        self.topic.skipped += following - self.cursor
        if self.policy is SlowPolicy.KEEP_NEWEST:
            self.cursor = following
        elif self.policy is SlowPolicy.DISCONNECT:
            self.topic.end(self, "the subscriber did not keep up")
            self.cursor = log.last + 1
        else:
            self._tell_gap(self.cursor, log)
            self.cursor = log.last + 1

    def _tell_gap(self, due: int, log: TopicLog) -> None:
        newest = log.newest
        payload, flags = (None, 0) if newest is None else (newest.payload, newest.flags)
        self._notice(due, "gap", log.last, payload, flags)

    def _notice(self, offset: int, *what: Any) -> None:
        link = self.connection.link
        if link is not None:
            link.session.send(FrameType.PUSH, 0, self.number, encode_notice(offset, *what))
            self.topic.flusher.mark(link)

    def say_end(self, reason: str) -> None:
        """Tell the subscriber that no update will come any more."""
        self._notice(0, "end", reason)


class Topic:
    """A topic: its log, and who listens."""

    def __init__(self, name: str, log: TopicLog, flusher: Flusher) -> None:
        self.name = name
        self.log = log
        self.flusher = flusher
        self.served: dict[Served, None] = {}
        self.skipped = 0
        self.awaited: list[tuple[int, set[str]]] = []
        """Offsets that publishers wait for, and who has not confirmed them yet."""
        self.changed = trio.lowlevel.ParkingLot()
        """Wakes who waits for confirmations or for room."""

    def end(self, served: Served, reason: str) -> None:
        """End a subscription from this side."""
        served.say_end(reason)
        self.leave(served)

    def leave(self, served: Served) -> None:
        """The subscriber has gone."""
        self.served.pop(served, None)
        self.changed.unpark_all()

    def note(self, served: Served) -> None:
        """A subscriber has confirmed: whoever waits for it learns so, even if it leaves in the next moment."""
        for offset, missing in self.awaited:
            if served.confirmed >= offset:
                missing.discard(served.connection.id)
        self.changed.unpark_all()

    def blockers(self, length: int) -> list[Served]:
        """The subscriptions that want to be waited for before an update of this length is taken."""
        return [
            served
            for served in self.served
            if served.policy is SlowPolicy.BLOCK and self.log.would_drop(length, served.cursor)
        ]


class Publisher:
    """The topics of one server."""

    def __init__(
        self,
        *,
        serializer: Serializer,
        flusher: Flusher,
        history: History,
        make_epoch: Callable[[], str],
    ) -> None:
        self._serializer = serializer
        self._flusher = flusher
        self._history = history
        self._make_epoch = make_epoch
        self._topics: dict[str, Topic] = {}
        self._numbers = 0

    def next_number(self) -> int:
        """A number for a topic, or for a subscription beside its topic's first on a connection."""
        self._numbers = self._numbers % 0xFFFFFFFF + 1
        return self._numbers

    def declare(self, name: str, *, history: History) -> None:
        """Give a topic a history of its own; raises :class:`ConfigurationError` once it has updates."""
        log = self.topic(name).log
        if log.last:
            raise ConfigurationError(f"topic {name!r} has updates already; declare it before its first one")
        log.history = history

    def subscribers(self, name: str) -> frozenset[str]:
        """The ids of the connections that are subscribed to a topic."""
        topic = self._topics.get(name)
        return frozenset(served.connection.id for served in topic.served) if topic else frozenset()

    def topic(self, name: str) -> Topic:
        """The topic of this name, made if it is new."""
        topic = self._topics.get(name)
        if topic is None:
            if not 0 < len(name) <= MAX_TOPIC_NAME:
                raise InvalidArguments(
                    f"a topic's name has 1 to {MAX_TOPIC_NAME} characters", outcome=Outcome.COMPLETED
                )
            if len(self._topics) >= MAX_TOPICS:
                self._forget_unused()
            log = TopicLog(self._make_epoch(), self.next_number(), self._history)
            topic = self._topics[name] = Topic(name, log, self._flusher)
        return topic

    def _forget_unused(self) -> None:
        unused = [name for name, topic in self._topics.items() if not topic.served and not topic.log.last]
        for name in unused:
            del self._topics[name]
        if len(self._topics) >= MAX_TOPICS:
            raise InvalidArguments(f"there are {MAX_TOPICS} topics already", outcome=Outcome.COMPLETED)

    async def publish(self, name: str, value: Any, wait: Wait, timeout: float | None) -> Receipt:
        """Publish an update; see :meth:`heartline.Server.publish`."""
        await trio.lowlevel.checkpoint()
        if wait not in (None, "sent", "confirmed"):
            raise ConfigurationError(f"wait must be None, 'sent' or 'confirmed', not {wait!r}")
        topic = self.topic(name)
        deadline = trio.current_time() + (float("inf") if timeout is None else timeout)
        payload, flags = encode_update(self._serializer, topic.log.last + 1, value)
        while topic.blockers(len(payload)) and trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                await topic.changed.park()
            payload, flags = encode_update(self._serializer, topic.log.last + 1, value)
        entry = topic.log.append(payload, flags, trio.current_time())
        targets = list(topic.served)
        for served in targets:
            served.advance()
        return await self._receipt(topic, entry, targets, wait, deadline)

    async def _receipt(
        self, topic: Topic, entry: Entry, targets: list[Served], wait: Wait, deadline: float
    ) -> Receipt:
        missing = {served.connection.id for served in targets} if wait is not None else set()
        everyone = frozenset(missing)
        with trio.move_on_at(deadline):
            if wait == "sent":
                await self._wait_sent(topic, entry, targets, missing)
            elif wait == "confirmed":
                await self._wait_confirmed(topic, entry, missing, patient=deadline < float("inf"))
        return Receipt(
            topic=topic.name,
            epoch=topic.log.epoch,
            offset=entry.offset,
            confirmed=everyone - missing,
            missing=frozenset(missing),
        )

    async def _wait_sent(self, topic: Topic, entry: Entry, targets: list[Served], missing: set[str]) -> None:
        for served in targets:
            while served in topic.served and served.cursor <= entry.offset:
                await topic.changed.park()
            link = served.connection.link
            if link is None or served not in topic.served:
                continue
            try:
                await link.wait_drained(lambda link=link: link.backlog > 0)  # type: ignore[misc]
            except ConnectionLost:
                continue
            missing.discard(served.connection.id)

    async def _wait_confirmed(self, topic: Topic, entry: Entry, missing: set[str], *, patient: bool) -> None:
        """Wait for the missing ones; with a deadline (``patient``) also for those that went and may return."""
        awaited = (entry.offset, missing)
        topic.awaited.append(awaited)
        try:
            while missing and (patient or missing & {served.connection.id for served in topic.served}):
                await topic.changed.park()
        finally:
            topic.awaited.remove(awaited)

    def statistics(self) -> dict[str, TopicStatistics]:
        """A snapshot of every topic."""
        return {
            name: TopicStatistics(
                subscribers=len(topic.served),
                last_offset=topic.log.last,
                retained=len(topic.log),
                retained_bytes=topic.log.size,
                slowest_lag=max((topic.log.last - s.confirmed for s in topic.served), default=0),
                skipped=topic.skipped,
            )
            for name, topic in self._topics.items()
        }
