"""A store of topics on a node's disk: files of checksummed records, to which records are only added.

Each opening begins another file. What a crash has torn stays at the end of its file: to cut it off, the file
would have to be rewritten, and a crash in that moment would take what was confirmed.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import final

import msgspec
import trio

from heartline.errors import LocalProtocolError, StoreError
from heartline.push import SavedKey, SavedState, SavedTopic, SavedUpdate, StoredUpdate
from heartline.testing._disk import Disk

__all__ = ["DiskStore"]

HEAD = struct.Struct("!II")
"""Before a record: how many bytes it has, and their CRC-32."""


class _Topic:
    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.last = 0
        self.updates: dict[int, tuple[float, StoredUpdate]] = {}
        self.keys: dict[int, SavedKey] = {}
        self.state: SavedState | None = None

    def add(self, time: float, updates: Sequence[StoredUpdate]) -> None:
        for update in updates:
            self.last = update.offset
            self.updates[update.offset] = time, update
            if update.key is not None:
                self.keys[update.offset] = update.key
            self.state = update.state or self.state
        first, first_key = (max(u.first for u in updates), max(u.first_key for u in updates))
        self.updates = {n: u for n, u in self.updates.items() if n >= first}
        self.keys = {n: k for n, k in self.keys.items() if n >= first_key}


class _Record(msgspec.Struct, frozen=True):
    """A new topic with its epoch, or a batch of updates."""

    time: float
    topic: str = ""
    epoch: str = ""
    updates: list[StoredUpdate] = []


@final
class DiskStore:
    """A store of topics on the disk of a node, for :attr:`heartline.TopicSettings.store`.

    Open it with ``async with`` in each life of the node. What :meth:`append` has confirmed survives a crash,
    and a batch that a crash tore is not there at all. Its files are called ``name`` with a number, and only
    grow, until the disk is full and :exc:`StoreError` is raised. ``clock`` gives seconds for
    :attr:`heartline.History.age`: by default the world's, which go on over a crash.
    """

    def __init__(
        self, disk: Disk, *, name: str = "topics", clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._disk = disk
        self._name = name
        self._file = ""
        self._clock = clock
        self._topics: dict[str, _Topic] | None = None

    async def __aenter__(self) -> DiskStore:
        if self._topics is not None:
            raise LocalProtocolError(f"the store {self._name!r} is open already")
        await trio.lowlevel.checkpoint()
        topics: dict[str, _Topic] = {}
        for number in itertools.count():
            self._file = f"{self._name}.{number}"
            if self._file not in self._disk.names:
                break
            for record in _records(self._disk.read(self._file)):
                _apply(topics, record)
        self._topics = topics
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._topics = None

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        """What is kept of a topic; see :meth:`Store.load`."""
        topics = self._opened()
        await trio.lowlevel.checkpoint()
        if topic not in topics:
            await self._commit(topics, _Record(self._clock(), topic, epoch))
        saved, now = topics[topic], self._clock()
        return SavedTopic(
            epoch=saved.epoch,
            last=saved.last,
            updates=[
                SavedUpdate(offset=n, payload=u.payload, flags=u.flags, age=max(0.0, now - time))
                for n, (time, u) in saved.updates.items()
            ],
            keys=list(saved.keys.values()),
            state=saved.state,
        )

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        """Keep all these updates or none, also when this is cancelled; see :meth:`Store.append`."""
        topics = self._opened()
        await trio.lowlevel.checkpoint_if_cancelled()
        last = {update.topic: topics[update.topic].last for update in batch}
        for update in batch:
            if update.offset != last[update.topic] + 1:
                raise StoreError(
                    f"update {update.offset} of topic {update.topic!r} does not follow {last[update.topic]}, "
                    "the last one stored: does another server publish on it?"
                )
            last[update.topic] = update.offset
        await self._commit(topics, _Record(self._clock(), updates=list(batch)))

    def _opened(self) -> dict[str, _Topic]:
        if self._topics is None:
            raise LocalProtocolError("open the store first: async with DiskStore(node.disk)")
        return self._topics

    async def _commit(self, topics: dict[str, _Topic], record: _Record) -> None:
        data = msgspec.msgpack.encode(record)
        try:
            self._disk.append(self._file, HEAD.pack(len(data), zlib.crc32(data)) + data)
            _apply(topics, record)
            # What is written cannot be taken back, so a commit that was begun is finished: 10 ms at most.
            with trio.CancelScope(shield=True):
                await self._disk.sync(self._file)
        except OSError as error:
            raise StoreError(f"the disk refuses: {error}") from error


def _apply(topics: dict[str, _Topic], record: _Record) -> None:
    if record.topic:
        topics[record.topic] = _Topic(record.epoch)
    by_topic: dict[str, list[StoredUpdate]] = {}
    for update in record.updates:
        by_topic.setdefault(update.topic, []).append(update)
    for topic, updates in by_topic.items():
        topics[topic].add(record.time, updates)


def _records(data: bytes) -> Iterator[_Record]:
    """Those that are whole: a crash leaves a part of the last one at most."""
    position = 0
    while position + HEAD.size <= len(data):
        length, checksum = HEAD.unpack_from(data, position)
        position += HEAD.size
        record = data[position : position + length]
        if len(record) < length or zlib.crc32(record) != checksum:
            return
        yield msgspec.msgpack.decode(record, type=_Record)
        position += length
