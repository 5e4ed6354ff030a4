"""Committing updates before they are published: one journal per store.

A publisher puts its update into the queue and sleeps. The journal's task takes all that wait, gives them
the next offsets, has the store commit them together, and puts them into their logs. While it writes, the next
ones gather. If the store fails, nobody has seen the offsets, and the next batch gets them.

The journal gives out the offsets because a topic has one publisher; the store checks that. What is stored has
no offset inside: that is written once, into the bytes that the log shares among subscribers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

import outcome
import trio

from heartline.errors import StoreError
from heartline.observe import report
from heartline.push._keys import Key
from heartline.push._store import Store, StoredUpdate
from heartline.push._topic import TURN, Taken, Topic

__all__ = ["QUEUE_COUNT", "QUEUE_SIZE", "Journal"]

logger = logging.getLogger("heartline.push")

QUEUE_COUNT = 1024
"""Updates that wait to be committed together; further publishers wait for room."""

QUEUE_SIZE = 16 * 1024 * 1024
"""Bytes of such updates, beside one more of any length."""


class _Item:
    """An update that waits, and its publisher's task."""

    __slots__ = ("flags", "key", "task", "topic", "value")

    def __init__(self, topic: Topic, value: bytes, flags: int, key: Key | None) -> None:
        self.topic = topic
        self.value = value
        self.flags = flags
        self.key = key
        self.task = trio.lowlevel.current_task()


class Journal:
    """The way of updates into one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._queue: dict[_Item, None] = {}
        self._size = 0
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._ended = False

    @trio.lowlevel.enable_ki_protection
    async def write(self, topic: Topic, value: bytes, flags: int, key: Key | None) -> Taken:
        """Commit an update and put it into its log; raises :class:`StoreError`, and then it is not published.

        Cancelling takes it back while it is in the queue. Once it is being written it cannot be cancelled, so
        that it is always known whether it was published.
        """
        while len(self._queue) >= QUEUE_COUNT or self._size >= QUEUE_SIZE:
            await self._room.park()
        if self._ended:
            raise StoreError(f"topic {topic.name!r}: its publisher has ended")
        item = _Item(topic, value, flags, key)
        self._put(item)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if item not in self._queue:
                return trio.lowlevel.Abort.FAILED
            self._take_back(item)
            return trio.lowlevel.Abort.SUCCEEDED

        taken: Taken = await trio.lowlevel.wait_task_rescheduled(abort)
        return taken

    def _put(self, item: _Item) -> None:
        self._queue[item] = None
        self._size += len(item.value)
        item.topic.expect(1, len(item.value))
        self._work.unpark()

    def _take_back(self, item: _Item) -> None:
        del self._queue[item]
        self._size -= len(item.value)
        item.topic.expect(-1, -len(item.value))
        self._room.unpark_all()

    def _take_all(self) -> deque[_Item]:
        items, self._queue, self._size = deque(self._queue), {}, 0
        self._room.unpark_all()
        return items

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The journal's task."""
        items: deque[_Item] = deque()
        try:
            while True:
                while not self._queue:
                    await self._work.park()
                items = self._take_all()
                await self._commit(items)
        finally:
            self._ended = True
            for item in [*items, *self._take_all()]:
                self._fail(item, StoreError(f"topic {item.topic.name!r}: its publisher has ended"))

    async def _commit(self, items: deque[_Item]) -> None:
        """Commit a batch; every item leaves the queue with its outcome."""
        batch = _number(items)
        try:
            await self.store.append(batch)
        except BaseException as error:
            if not isinstance(error, StoreError):
                report(logger, error, "a store failed with an error that is not a StoreError")
            while items:
                item = items.popleft()
                # Each publisher gets an error of its own, since raising one adds to its traceback.
                told = StoreError(f"topic {item.topic.name!r}: the update was not stored: {error}")
                told.__cause__ = error
                self._fail(item, told)
        else:
            await _take_all(batch, items)

    def _fail(self, item: _Item, error: StoreError) -> None:
        item.topic.expect(-1, -len(item.value))
        trio.lowlevel.reschedule(item.task, outcome.Error(error))


async def _take_all(batch: list[StoredUpdate], items: deque[_Item]) -> None:
    """Put what was committed into the logs, in turns; never cancelled, for it cannot be taken back."""
    now = trio.current_time()
    for count, update in enumerate(batch, 1):
        item = items.popleft()
        topic = item.topic
        topic.expect(-1, -len(item.value))
        if update.state is not None and topic.state is not None:
            topic.state.saved = update.state.offset
        taken = topic.take(item.value, item.flags, now, item.key)
        trio.lowlevel.reschedule(item.task, outcome.Value(taken))
        if count % TURN == 0:
            await trio.lowlevel.cancel_shielded_checkpoint()


def _number(items: Iterable[_Item]) -> list[StoredUpdate]:
    """The updates as they go to the store, each with the next offset of its topic."""
    batch = []
    last: dict[Topic, int] = {}
    for item in items:
        topic = item.topic
        state = None
        if topic not in last:
            last[topic] = topic.log.last
            state = topic.state_to_save()
        offset = last[topic] = last[topic] + 1
        batch.append(
            StoredUpdate(
                topic=topic.name,
                offset=offset,
                payload=item.value,
                flags=item.flags,
                key=None if item.key is None else item.key.at(offset),
                state=state,
                first=topic.log.first,
                first_key=topic.keys.first,
            )
        )
    return batch
