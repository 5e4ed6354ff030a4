"""A store in memory that can be made to fail and to crash."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from heartline import SqliteStore
from heartline.errors import StoreError
from heartline.push import SavedKey, SavedState, SavedTopic, SavedUpdate, Store, StoredUpdate


@dataclass
class Disk:
    """What outlives the program: the topics that were committed."""

    topics: dict[str, _Kept] = field(default_factory=dict)
    now: float = 0.0


@dataclass
class _Kept:
    epoch: str
    last: int = 0
    updates: dict[int, tuple[bytes, int, float]] = field(default_factory=dict)
    keys: list[SavedKey] = field(default_factory=list)
    state: SavedState | None = None


class FakeStore:
    """A store on a fake disk. A write takes ``pause`` seconds; what is planted happens to it."""

    def __init__(self, disk: Disk, *, pause: float = 0.0) -> None:
        self.disk = disk
        self.pause = pause
        self.planted: list[BaseException | str] = []
        """For the next writes: an error to raise, ``"before"`` or ``"after"``: hang there for good, as if the
        program was killed before or after the commit."""
        self.batches: list[Sequence[StoredUpdate]] = []

    async def __aenter__(self) -> FakeStore:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        await trio.lowlevel.checkpoint()
        kept = self.disk.topics.setdefault(topic, _Kept(epoch))
        return SavedTopic(
            epoch=kept.epoch,
            last=kept.last,
            updates=[
                SavedUpdate(offset=offset, payload=payload, flags=flags, age=self.disk.now - time)
                for offset, (payload, flags, time) in kept.updates.items()
            ],
            keys=list(kept.keys),
            state=kept.state,
        )

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        planted = self.planted.pop(0) if self.planted else None
        await trio.sleep(self.pause)
        if isinstance(planted, BaseException):
            raise planted
        if planted == "before":
            await trio.sleep_forever()
        topics = deepcopy(self.disk.topics)
        for update in batch:
            kept = topics[update.topic]
            if update.offset != kept.last + 1:
                raise StoreError(f"{update.offset} does not follow {kept.last}")
            kept.last = update.offset
            kept.updates[update.offset] = (update.payload, update.flags, self.disk.now)
            kept.keys += [update.key] if update.key else []
            kept.state = update.state or kept.state
            kept.updates = {n: each for n, each in kept.updates.items() if n >= update.first}
            kept.keys = [key for key in kept.keys if key.offset >= update.first_key]
        self.disk.topics = topics
        self.batches.append(batch)
        if planted == "after":
            await trio.sleep_forever()


class Places:
    """Stores by name: of a kind, on places that outlive them."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self._path = path
        self._disks: dict[str, Disk] = {}

    def open(self, name: str = "store") -> AbstractAsyncContextManager[Any]:
        if self.kind == "sqlite":
            return SqliteStore(self._path / name)
        return FakeStore(self._disks.setdefault(name, Disk()))


_: type[Store] = FakeStore
