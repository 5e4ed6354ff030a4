"""A store of topics on a node's disk: an append-only file of checksummed batches."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import msgspec

from heartline.errors import StoreError
from heartline.push import SavedKey, SavedState, SavedTopic, SavedUpdate, StoredUpdate
from heartline.testing import Disk

__all__ = ["DiskStore"]

FILE = "topics"
HEAD = struct.Struct("!II")


class _Topic:
    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.last = 0
        self.updates: dict[int, tuple[float, StoredUpdate]] = {}
        self.keys: dict[int, SavedKey] = {}
        self.state: SavedState | None = None

    def add(self, time: float, update: StoredUpdate) -> None:
        self.last = update.offset
        self.updates[update.offset] = time, update
        if update.key is not None:
            self.keys[update.offset] = update.key
        self.state = update.state or self.state
        self.updates = {n: u for n, u in self.updates.items() if n >= update.first}
        self.keys = {n: k for n, k in self.keys.items() if n >= update.first_key}


class _Batch(msgspec.Struct, frozen=True):
    """A record of the file: a new topic with its epoch, or updates."""

    time: float
    topic: str = ""
    epoch: str = ""
    updates: list[StoredUpdate] = []


class DiskStore:
    """Keeps topics on the disk of a node; open it once in each life of the node."""

    def __init__(self, disk: Disk, clock: Callable[[], float]) -> None:
        self._disk, self._clock = disk, clock
        self._topics: dict[str, _Topic] = {}

    async def open(self) -> None:
        """Read what is there, and cut off what a crash has left of a batch."""
        data = self._disk.read(FILE)
        position = 0
        while position + HEAD.size <= len(data):
            length, checksum = HEAD.unpack_from(data, position)
            record = data[position + HEAD.size : position + HEAD.size + length]
            if len(record) < length or zlib.crc32(record) != checksum:
                break
            self._apply(msgspec.msgpack.decode(record, type=_Batch))
            position += HEAD.size + length
        if position < len(data):
            self._disk.write(FILE, data[:position])
            await self._disk.sync(FILE)

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        """What is kept of a topic."""
        if topic not in self._topics:
            await self._commit(_Batch(self._clock(), topic, epoch))
        saved, now = self._topics[topic], self._clock()
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
        """Keep these updates."""
        await self._commit(_Batch(self._clock(), updates=list(batch)))

    async def _commit(self, batch: _Batch) -> None:
        record = msgspec.msgpack.encode(batch)
        try:
            self._disk.append(FILE, HEAD.pack(len(record), zlib.crc32(record)) + record)
            await self._disk.sync(FILE)
        except OSError as error:
            raise StoreError(f"the disk refuses: {error}") from error
        self._apply(batch)

    def _apply(self, batch: _Batch) -> None:
        if batch.topic:
            self._topics[batch.topic] = _Topic(batch.epoch)
        for update in batch.updates:
            self._topics[update.topic].add(batch.time, update)
