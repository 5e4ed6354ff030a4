"""The publisher: the topics of one server.

A publish appends to the log once (with a store when that has committed it), and then moves every cursor that
is not behind; a cursor that is (its window of unconfirmed updates is full) is moved on by the subscriber's
confirmations. So nobody waits for anybody, unless a subscriber asked for it with :attr:`SlowPolicy.BLOCK`, or
the publisher with ``wait``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from heartline.errors import ConfigurationError
from heartline.link import Flusher
from heartline.observe import Hooks, Operation
from heartline.push._journal import Journal
from heartline.push._keys import make_key
from heartline.push._log import History, TopicLog
from heartline.push._receipt import Receipt
from heartline.push._restore import restore
from heartline.push._settings import TopicSettings
from heartline.push._state import State
from heartline.push._store import SavedKey, Store
from heartline.push._topic import Taken, Topic
from heartline.push._waiting import WaitFor, wait_receipt
from heartline.push._wire import encode_update
from heartline.wire import Serializer

__all__ = ["MAX_TOPICS", "MAX_TOPIC_NAME", "Publisher", "TopicStatistics"]

BLOCK_PATIENCE = 30.0
"""Seconds that one update waits for subscribers with SlowPolicy.BLOCK: as long as a silent peer is borne.
Then they are left behind like the others, so that no subscriber holds a publisher up for good."""

MAX_TOPICS = 4096
"""Topics that peers may bring about, so that subscribing to made-up names cannot fill the memory. The
publisher itself may have as many beside them, so that made-up names cannot take its places either."""

MAX_TOPIC_NAME = 256
"""Characters in a topic's name."""


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
        hooks: Hooks,
    ) -> None:
        self._serializer = serializer
        self._flusher = flusher
        self._history = history
        self._make_epoch = make_epoch
        self._hooks = hooks
        self._topics: dict[str, Topic] = {}
        self.journals: list[Journal] = []
        """One for each store; their tasks belong to the server."""
        self._numbers = 0

    def next_number(self) -> int:
        """A number for a topic, or for a subscription beside its topic's first on a connection."""
        self._numbers = self._numbers % 0xFFFFFFFF + 1
        return self._numbers

    def declare(self, name: str, *, history: History) -> None:
        """Give a topic a history of its own; raises :class:`ConfigurationError` once it has updates."""
        if not isinstance(history, History):
            raise ConfigurationError(f"history must be a heartline.History, not {history!r}")
        topic = self.topic(name)
        log = topic.log
        if log.last and history != log.history:
            raise ConfigurationError(f"topic {name!r} has updates already; declare it before its first one")
        log.history = history
        topic.settled = True

    def state(self, name: str) -> Any:
        """The state of a topic with a fold; raises :class:`ConfigurationError` or :class:`PushError`."""
        topic = self.topic(name)
        if topic.state is None:
            raise ConfigurationError(f"topic {name!r} has no fold: give it one with TopicSettings.fold")
        return topic.state.value

    def subscribers(self, name: str) -> frozenset[str]:
        """The ids of the connections that are subscribed to a topic."""
        topic = self._topics.get(name)
        return frozenset(served.core.id for served in topic.served) if topic else frozenset()

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
            topic = self._topics[name] = Topic(name, log, self._flusher, self._hooks.tell("update_published"))
        return topic

    def _make_room(self, limit: int) -> None:
        """Forget the topics that nobody has used when the limit is reached."""
        if len(self._topics) < limit:
            return
        self._topics = {
            name: topic
            for name, topic in self._topics.items()
            if topic.served or topic.settled or topic.log.last
        }
        if len(self._topics) >= limit:
            raise ConfigurationError(f"there are {len(self._topics)} topics already, the limit is {limit}")

    async def open_topics(self, topics: Mapping[str, TopicSettings]) -> None:
        """Make topics known, with what their stores have of them; before anybody can ask for them."""
        for name, settings in topics.items():
            if not isinstance(settings, TopicSettings):
                raise ConfigurationError(
                    f"topics[{name!r}] must be a heartline.TopicSettings, not {settings!r:.80}"
                )
            topic = self.topic(name)
            topic.settled = True
            if settings.history is not None:
                topic.log.history = settings.history
            if settings.fold is not None:
                durable = settings.store is not None
                topic.state = State(name, settings.fold, self._serializer, durable=durable)
            if settings.store is not None:
                topic.journal = self._journal(settings.store)
                restore(topic, await settings.store.load(name, topic.log.epoch))

    def _journal(self, store: Store) -> Journal:
        """The journal of a store: one for all topics that it keeps, whose updates are committed together."""
        for journal in self.journals:
            if journal.store is store:
                return journal
        self.journals.append(Journal(store))
        return self.journals[-1]

    async def publish(
        self, name: str, value: Any, key: str | None, wait: WaitFor, timeout: float | None
    ) -> Receipt:
        """Publish an update; see :meth:`heartline.Server.publish`."""
        if not self._hooks.middleware:
            return await self._publish(name, value, key, wait, timeout)
        operation = Operation(kind="publish", name=name, peer="", subject=value)
        receipt: Receipt = await self._hooks.guard(
            operation, partial(self._publish, name, value, key, wait, timeout)
        )
        return receipt

    async def _publish(
        self, name: str, value: Any, key: str | None, wait: WaitFor, timeout: float | None
    ) -> Receipt:
        await trio.lowlevel.checkpoint()
        if wait not in (None, "stored", "sent", "confirmed"):
            raise ConfigurationError(f"wait must be None, 'stored', 'sent' or 'confirmed', not {wait!r}")
        if timeout is not None and not timeout >= 0:
            raise ConfigurationError(f"timeout must be seconds of at least 0 or None, not {timeout!r}")
        topic = self.topic(name)
        if wait == "stored" and topic.journal is None:
            raise ConfigurationError(f"topic {name!r} has no store: give it one with TopicSettings.store")
        deadline = trio.current_time() + (math.inf if timeout is None else timeout)
        if key is None:
            taken = await self._take(topic, value, None, deadline)
        else:
            taken = await self._take_once(topic, value, make_key(self._serializer, key, value), deadline)
        return await wait_receipt(topic, taken, wait, deadline)

    async def _take(self, topic: Topic, value: Any, key: SavedKey | None, deadline: float) -> Taken:
        payload, flags = await self._encode(topic, value, deadline)
        if topic.journal is not None:
            return await topic.journal.write(topic, payload, flags, key)
        return topic.take(payload, flags, trio.current_time(), key)

    @trio.lowlevel.enable_ki_protection
    async def _take_once(self, topic: Topic, value: Any, key: SavedKey, deadline: float) -> Taken:
        """As ``_take``, unless an update with this key was published before, which is given then."""
        offset = await topic.keys.claim(topic.name, key)
        if offset is not None:
            return Taken(offset, [served for served in topic.served if served.start < offset])
        try:
            return await self._take(topic, value, key, deadline)
        finally:
            topic.keys.release(key)

    async def _encode(self, topic: Topic, value: Any, deadline: float) -> tuple[bytes, int]:
        """The update's payload and flags, as soon as the topic can take it, at the latest at the deadline."""
        offset = topic.next_offset
        payload, flags = encode_update(self._serializer, offset, value)
        deadline = min(deadline, trio.current_time() + BLOCK_PATIENCE)
        while topic.blocked(len(payload)) and trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                await topic.changed.park()
            if topic.next_offset != offset:  # another publisher was faster
                offset = topic.next_offset
                payload, flags = encode_update(self._serializer, offset, value)
        return payload, flags

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
