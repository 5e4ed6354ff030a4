"""What the nodes of the chaos demo keep on their disks: lines of notes, and from them a store of topics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from heartline.push import SavedKey, SavedTopic, SavedUpdate, StoredUpdate
from heartline.testing import Disk

END = "|"
"""At the end of each line, and in no line: a line without it was being written when the power went."""


class Notebook:
    """Lines on a disk. Once :meth:`add` has returned, a line survives every crash."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        lines = disk.read(name).decode(errors="replace").splitlines()
        self.lines = [line.removesuffix(END) for line in lines if line.endswith(END)]
        disk.append(name, b"\n")  # nothing may be added to half a line

    async def add(self, line: str) -> None:
        """Write a line, and wait until it is durable."""
        self._disk.append(self._name, f"{line}{END}\n".encode())
        await self._disk.sync(self._name)
        self.lines.append(line)


class Batch(NamedTuple):
    """A line of the store: a topic that is new, or updates of topics; all of it or nothing is there."""

    topic: str
    epoch: str
    updates: list[StoredUpdate]


class NotebookStore:
    """A store for durable topics: the two methods of :class:`heartline.Store`.

    It never throws anything away, which is good enough for a minute. On a real disk there is
    :class:`heartline.SqliteStore`.
    """

    def __init__(self, disk: Disk) -> None:
        self._notes = Notebook(disk, "topics")
        self._batches = [msgspec.json.decode(line, type=Batch) for line in self._notes.lines]

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        """What is kept of a topic; one that is new gets this epoch for good."""
        epochs = [batch.epoch for batch in self._batches if batch.topic == topic]
        if not epochs:
            await self._add(Batch(topic, epoch, []))
        updates = [update for batch in self._batches for update in batch.updates if update.topic == topic]
        keys: list[SavedKey] = [update.key for update in updates if update.key is not None]
        return SavedTopic(
            epoch=epochs[0] if epochs else epoch,
            last=updates[-1].offset if updates else 0,
            updates=[SavedUpdate(offset=u.offset, payload=u.payload, flags=u.flags, age=0) for u in updates],
            keys=keys,
        )

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        """Keep these updates."""
        await self._add(Batch("", "", list(batch)))

    async def _add(self, batch: Batch) -> None:
        await self._notes.add(msgspec.json.encode(batch).decode())
        self._batches.append(batch)
