"""The publisher: the topics of one endpoint, a server or a client.

A publish appends to the log once (with a store when that has committed it), and then moves every cursor that
is not behind. A cursor that is behind (its window of unconfirmed updates is full) moves with the subscriber's
confirmations. So nobody waits for anybody, except where a topic allows the policy ``"block"``, or the
publisher asks for it with ``wait``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from heartline.errors import ConfigurationError, LocalProtocolError, PushError
from heartline.link import Flusher
from heartline.observe import Hooks, Operation
from heartline.push._journal import Journal
from heartline.push._keys import Key, make_key
from heartline.push._log import History, TopicLog
from heartline.push._receipt import Receipt
from heartline.push._restore import restore
from heartline.push._settings import TopicSettings, check_policies
from heartline.push._state import State
from heartline.push._store import Store
from heartline.push._topic import TURN, Taken, Topic
from heartline.push._types import WAITS, SlowPolicy, WaitFor, check_choice, check_topic_name, is_seconds
from heartline.push._waiting import hand_out
from heartline.push._wire import OFFSET
from heartline.wire import Limits, Serializer, encode_value

__all__ = ["Publisher", "TopicStatistics"]

BLOCK_PATIENCE = 30.0
"""Seconds that one update waits for subscribers with the policy "block": as long as a silent peer is
tolerated. Then they are left behind like the others, so that no subscriber blocks a publisher forever."""


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
    """The topics of one endpoint.

    A topic is *held* once it is declared or has an update; ``Limits.topics`` bounds those. One that only has
    subscribers lives as long as they do, and they are bounded for each peer. A topic that is
    held only for its updates is forgotten when all of them have aged away and nobody is subscribed.
    """

    def __init__(
        self,
        *,
        serializer: Serializer,
        flusher: Flusher,
        limits: Limits,
        history: History,
        declared_only: bool,
        make_epoch: Callable[[], str],
        hooks: Hooks,
    ) -> None:
        self._serializer = serializer
        self._flusher = flusher
        self._limits = limits
        self._history = history
        self._declared_only = declared_only
        self._make_epoch = make_epoch
        self._hooks = hooks
        # Shared by topics: one that comes again before it was ever published is still in its first life.
        self._epoch = ""
        self._topics: dict[str, Topic] = {}
        self._held = 0
        self._aging: OrderedDict[str, Topic] = OrderedDict()
        """Topics that were not declared, with updates that age away; the last published at the end."""
        self.journals: list[Journal] = []
        """One for each store; their tasks belong to the endpoint."""
        self._numbers = 0

    def next_number(self) -> int:
        """A number for a topic, or for a subscription beside its topic's first on a connection."""
        self._numbers = self._numbers % 0xFFFFFFFF + 1
        return self._numbers

    # Topics

    def find(self, name: str) -> Topic:
        """The topic of this name; a new one lasts while it is used. Raises :class:`ConfigurationError`."""
        topic = self._topics.get(name)
        if topic is None:
            check_topic_name(name)
            if self._declared_only:
                raise ConfigurationError(
                    f"topic {name!r} is not declared, and this side has declared topics alone (declared_only)"
                )
            topic = self._make(name)
        return topic

    def _make(self, name: str) -> Topic:
        self._epoch = self._epoch or self._make_epoch()
        log = TopicLog(self._epoch, self.next_number(), self._history)
        tell = self._hooks.tell("update_published")
        topic = self._topics[name] = Topic(name, log, self._flusher, self.forget, tell)
        return topic

    def _hold(self, topic: Topic) -> None:
        """This topic is about to be declared or to have its first update; raises if there are too many."""
        if topic.settled or topic.log.last:
            return
        self._forget_aged()
        if self._held >= self._limits.topics:
            self.forget(topic)
            raise ConfigurationError(
                f"topic {topic.name!r} would be one more than {self._limits.topics} (Limits.topics); "
                "delete_topic makes room"
            )
        self._held += 1

    def forget(self, topic: Topic) -> None:
        """Forget a topic if nobody uses it and it retains nothing."""
        if topic.settled or topic.served or topic.publishing or topic.deleted:
            return
        topic.log.trim(trio.current_time())
        if not len(topic.log):
            self._drop(topic)

    def _forget_aged(self) -> None:
        """Forget what has aged away since the last time."""
        now = trio.current_time()
        while self._aging:
            topic = next(iter(self._aging.values()))
            topic.log.trim(now)
            if len(topic.log):
                return  # those behind it are younger
            del self._aging[topic.name]
            self.forget(topic)

    def _drop(self, topic: Topic) -> None:
        del self._topics[topic.name]
        self._aging.pop(topic.name, None)
        topic.deleted = True
        if topic.settled or topic.log.last:
            self._held -= 1
            # Its offsets are known to others. What comes under its name now is another life.
            self._epoch = ""

    def declare(self, name: str, *, history: History | None, policies: Collection[SlowPolicy] | None) -> None:
        """See :meth:`heartline.Server.declare_topic`."""
        if history is not None and not isinstance(history, History):
            raise ConfigurationError(f"history must be a heartline.History, not {history!r:.80}")
        if policies is not None:
            check_policies("policies", policies)
        check_topic_name(name)
        topic = self._topics.get(name) or self._make(name)
        log = topic.log
        if history is not None and log.last and history != log.history:
            raise ConfigurationError(f"topic {name!r} has updates already; declare it before its first one")
        self._hold(topic)
        topic.settled = True
        self._aging.pop(name, None)
        log.history = history or log.history
        if policies is not None:
            topic.policies = frozenset(policies)

    @trio.lowlevel.enable_ki_protection
    async def delete(self, name: str) -> None:
        """See :meth:`heartline.Server.delete_topic`."""
        check_topic_name(name)
        await trio.lowlevel.checkpoint()
        topic = self._topics.get(name)
        if topic is None:
            return
        if topic.journal is not None:
            raise ConfigurationError(
                f"topic {name!r} has a store, which keeps it: leave it out of topics= at the next opening"
            )
        self._drop(topic)
        for count, served in enumerate(list(topic.served.values()), 1):
            served.end("end", "the topic was deleted")
            if count % TURN == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def open_topics(self, topics: Mapping[str, TopicSettings]) -> None:
        """Make topics known, with what their stores have of them; before anybody can ask for them."""
        for name, settings in topics.items():
            if not isinstance(settings, TopicSettings):
                raise ConfigurationError(
                    f"topics[{name!r}] must be a heartline.TopicSettings, not {settings!r:.80}"
                )
            self.declare(name, history=settings.history, policies=settings.policies)
            topic = self._topics[name]
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

    def state(self, name: str) -> Any:
        """See :meth:`heartline.Server.topic_state`."""
        check_topic_name(name)
        topic = self._topics.get(name)
        if topic is None or topic.state is None:
            raise ConfigurationError(f"topic {name!r} has no fold: give it one with TopicSettings.fold")
        return topic.state.value

    def subscribers(self, name: str) -> frozenset[str]:
        """The ids of the connections that are subscribed to a topic."""
        check_topic_name(name)
        topic = self._topics.get(name)
        return frozenset(connection_id for connection_id, _ in topic.served) if topic else frozenset()

    # Publishing

    async def publish(
        self, name: str, value: Any, key: str | None, wait: WaitFor, timeout: float | None
    ) -> Receipt:
        """See :meth:`heartline.Server.publish`."""
        if type(name) is not str:  # its length is looked at where a topic is made
            check_topic_name(name)
        if not self._hooks.middleware:
            return await self._publish(name, value, key, wait, timeout)
        operation = Operation(kind="publish", name=name, peer="", subject=value)
        receipt: Receipt = await self._hooks.guard(
            operation, partial(self._publish, name, value, key, wait, timeout)
        )
        return receipt

    @trio.lowlevel.enable_ki_protection
    async def _publish(
        self, name: str, value: Any, key: str | None, wait: WaitFor, timeout: float | None
    ) -> Receipt:
        await trio.lowlevel.checkpoint()
        if wait is not None:
            check_choice("wait", wait, WAITS, or_else=" or None")
        if timeout is not None and not is_seconds(timeout):
            raise ConfigurationError(f"timeout must be seconds of at least 0 or None, not {timeout!r:.80}")
        encoded, flags = encode_value(self._serializer, value, self._limits)
        if len(encoded) + OFFSET.size > self._limits.message_size:
            raise LocalProtocolError(
                f"an update of {len(encoded) + OFFSET.size} bytes: this side allows messages of "
                f"{self._limits.message_size} bytes (Limits.message_size)"
            )
        made_key = None if key is None else make_key(key, encoded)
        topic = self.find(name)
        topic.publishing += 1
        try:
            if wait == "stored" and topic.journal is None:
                raise ConfigurationError(f"topic {name!r} has no store: give it one with TopicSettings.store")
            deadline = trio.current_time() + (math.inf if timeout is None else timeout)
            if made_key is None:
                taken = await self._take(topic, encoded, flags, None, deadline)
            else:
                taken = await self._take_once(topic, encoded, flags, made_key, deadline)
            return await hand_out(topic, taken, wait, deadline)
        finally:
            topic.publishing -= 1
            if not topic.log.last:  # it failed, and the topic may be there for nothing else
                self.forget(topic)

    @trio.lowlevel.enable_ki_protection
    async def _take(self, topic: Topic, value: bytes, flags: int, key: Key | None, deadline: float) -> Taken:
        """Give an update its offset, as soon as the topic can take it, at the latest at the deadline."""
        if topic.blocked(len(value)):
            await _wait_unblocked(topic, len(value), min(deadline, trio.current_time() + BLOCK_PATIENCE))
        if topic.deleted:
            raise PushError(f"topic {topic.name!r} was deleted")
        if topic.journal is not None:
            return await topic.journal.write(topic, value, flags, key)
        if not topic.settled:
            self._hold(topic)
            if self._history.age < math.inf:
                self._aging[topic.name] = topic
                self._aging.move_to_end(topic.name)
        return topic.take(value, flags, trio.current_time(), key)

    @trio.lowlevel.enable_ki_protection
    async def _take_once(self, topic: Topic, value: bytes, flags: int, key: Key, deadline: float) -> Taken:
        """As ``_take``, unless an update with this key was published before, which is given then."""
        offset = await topic.keys.claim(topic.name, key)
        if offset is not None:
            return Taken(offset, [served for served in topic.served.values() if served.start < offset])
        try:
            return await self._take(topic, value, flags, key, deadline)
        finally:
            topic.keys.release(key)

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
                slowest_lag=max((topic.log.last - s.confirmed for s in topic.served.values()), default=0),
                skipped=topic.skipped,
            )
            for name, topic in self._topics.items()
        }


async def _wait_unblocked(topic: Topic, length: int, deadline: float) -> None:
    with trio.move_on_at(deadline):
        while topic.blocked(length):
            await topic.changed.park()
