"""The publisher: the topics of one server.

A publish appends to the log once and then moves every cursor that is not behind; a cursor that is (its window
of unconfirmed updates is full) is moved on by the subscriber's confirmations. So nobody waits for anybody,
unless a subscriber asked for it with :attr:`SlowPolicy.BLOCK`, or the publisher with ``wait``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import trio

from heartline.connection import Flusher, Link
from heartline.errors import ConfigurationError, ConnectionLost
from heartline.push._log import Entry, History, TopicLog
from heartline.push._receipt import Receipt, Wait, Who
from heartline.push._topic import Served, Topic
from heartline.push._wire import encode_update
from heartline.wire import FrameType, Serializer

__all__ = ["MAX_TOPICS", "MAX_TOPIC_NAME", "Publisher", "TopicStatistics"]

BLOCK_PATIENCE = 30.0
"""Seconds that one update waits for subscribers with SlowPolicy.BLOCK: as long as a silent peer is borne.
Then they are left behind like the others, so that no subscriber holds a publisher up for good."""

MAX_TOPICS = 4096
"""Topics that peers may bring about, so that subscribing to made-up names cannot fill the memory. The
publisher itself may have as many beside them, so that made-up names cannot take its places either."""

MAX_TOPIC_NAME = 256
"""Characters in a topic's name."""

WaitFor = Literal["sent", "confirmed"] | None


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
        if not isinstance(history, History):
            raise ConfigurationError(f"history must be a heartline.History, not {history!r}")
        log = self.topic(name).log
        if log.last and history != log.history:
            raise ConfigurationError(f"topic {name!r} has updates already; declare it before its first one")
        log.history = history

    def subscribers(self, name: str) -> frozenset[str]:
        """The ids of the connections that are subscribed to a topic."""
        topic = self._topics.get(name)
        return frozenset(served.connection.id for served in topic.served) if topic else frozenset()

    def topic(self, name: str, *, for_peer: bool = False) -> Topic:
        """The topic of this name, made if it is new; raises :class:`ConfigurationError`."""
        topic = self._topics.get(name)
        if topic is None:
            if not isinstance(name, str) or not 0 < len(name) <= MAX_TOPIC_NAME:
                raise ConfigurationError(
                    f"a topic's name is text of 1 to {MAX_TOPIC_NAME} characters, not {name!r:.80}"
                )
            self._make_room(MAX_TOPICS if for_peer else 2 * MAX_TOPICS)
            log = TopicLog(self._make_epoch(), self.next_number(), self._history)
            topic = self._topics[name] = Topic(name, log, self._flusher)
        return topic

    def _make_room(self, limit: int) -> None:
        """Forget the topics that nobody has used when the limit is reached."""
        if len(self._topics) < limit:
            return
        self._topics = {
            name: topic
            for name, topic in self._topics.items()
            if topic.served or topic.log.last or topic.log.history is not self._history
        }
        if len(self._topics) >= limit:
            raise ConfigurationError(f"there are {len(self._topics)} topics already, the limit is {limit}")

    async def publish(self, name: str, value: Any, wait: WaitFor, timeout: float | None) -> Receipt:
        """Publish an update; see :meth:`heartline.Server.publish`."""
        await trio.lowlevel.checkpoint()
        if wait not in (None, "sent", "confirmed"):
            raise ConfigurationError(f"wait must be None, 'sent' or 'confirmed', not {wait!r}")
        if timeout is not None and not timeout >= 0:
            raise ConfigurationError(f"timeout must be seconds of at least 0 or None, not {timeout!r}")
        topic = self.topic(name)
        deadline = trio.current_time() + (math.inf if timeout is None else timeout)
        payload, flags = await self._encode(topic, value, deadline)
        entry = topic.log.append(payload, flags, trio.current_time())
        targets = list(topic.served)
        for served in targets:
            served.advance()
        return await self._receipt(topic, entry, targets, wait, deadline)

    async def _encode(self, topic: Topic, value: Any, deadline: float) -> tuple[bytes, int]:
        """The update's payload and flags, as soon as the topic can take it, at the latest at the deadline."""
        offset = topic.log.last + 1
        payload, flags = encode_update(self._serializer, offset, value)
        deadline = min(deadline, trio.current_time() + BLOCK_PATIENCE)
        while topic.blocked(len(payload)) and trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                await topic.changed.park()
            if topic.log.last >= offset:  # another publisher was faster
                offset = topic.log.last + 1
                payload, flags = encode_update(self._serializer, offset, value)
        return payload, flags

    async def _receipt(
        self, topic: Topic, entry: Entry, targets: list[Served], wait: WaitFor, deadline: float
    ) -> Receipt:
        missing: set[Who] = set()
        if wait == "sent":
            missing = {served.who for served in targets}
            with trio.move_on_at(deadline):
                await self._wait_sent(topic, entry, targets, missing)
        elif wait == "confirmed":
            missing = await self._wait_confirmed(topic, entry, targets, deadline)
        everyone = frozenset() if wait is None else frozenset(served.connection.id for served in targets)
        gone = frozenset(connection_id for connection_id, _ in missing)
        return Receipt(
            topic=topic.name,
            epoch=topic.log.epoch,
            offset=entry.offset,
            confirmed=everyone - gone,
            missing=gone,
        )

    async def _wait_sent(self, topic: Topic, entry: Entry, targets: list[Served], missing: set[Who]) -> None:
        for served in targets:
            while served in topic.served and served.cursor <= entry.offset:
                await topic.changed.park()
            link = served.connection.link
            if link is None or served not in topic.served:
                continue
            try:
                await _wait_taken(link, served.number)
            except ConnectionLost:
                continue
            missing.discard(served.who)

    async def _wait_confirmed(
        self, topic: Topic, entry: Entry, targets: list[Served], deadline: float
    ) -> set[Who]:
        wait = Wait(entry.offset, (served.who for served in targets), patient=deadline < math.inf)
        for served in targets:
            if served not in topic.served:
                wait.gone(served.who, lost=False)  # this very update was too much for it
        topic.waits.append(wait)
        try:
            with trio.move_on_at(deadline):
                await wait.done()
        finally:
            topic.waits.remove(wait)
        return wait.missing

    def statistics(self) -> dict[str, TopicStatistics]:
        """A snapshot of every topic."""
        now = trio.current_time()
        for topic in self._topics.values():
            topic.log.trim(now)
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


async def _wait_taken(link: Link, number: int) -> None:
    """Wait until the transport has taken what is queued under this number; raises :class:`ConnectionLost`."""
    session = link.session
    outbox = session.outbox
    sent = session.sent

    def waits() -> bool:
        # All small frames go with the next write, whatever else is queued; a long one takes turns.
        return (session.sent == sent and outbox.small > 0) or outbox.holds(FrameType.PUSH, 0, number)

    await link.wait_drained(waits)
