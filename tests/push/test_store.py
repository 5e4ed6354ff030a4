"""Stores: the checks hold for ours, and find what is broken in others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from heartline.errors import StoreError
from heartline.push import SavedTopic, StoredUpdate
from heartline.testing import check_store
from tests.push.stores import Disk, FakeStore, Places


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fake", "sqlite"])
async def test_it_keeps_the_rules(kind: str, tmp_path: Path) -> None:
    await check_store(Places(kind, tmp_path).open)


class Forgetful(FakeStore):
    """Every opening finds nothing."""

    async def __aenter__(self) -> FakeStore:
        self.disk.topics.clear()
        return self


class Partial(FakeStore):
    """Keeps the part of a batch before what it refuses."""

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        for update in batch:
            await super().append([update])


class Careless(FakeStore):
    """Does not look at offsets."""

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        for update in batch:
            if update.topic in self.disk.topics:
                self.disk.topics[update.topic].last = update.offset - 1
        await super().append(batch)


class Eager(FakeStore):
    """Forgets one update more than it may."""

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        await super().append([replace(update, first=update.first + 1) for update in batch])


class Keyless(FakeStore):
    """Forgets keys."""

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        await super().append([replace(update, first_key=update.offset) for update in batch])


class Stateless(FakeStore):
    """Forgets states."""

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        return replace(await super().load(topic, epoch), state=None)


class Stuck(FakeStore):
    """Never answers."""

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("broken", [Forgetful, Partial, Careless, Eager, Keyless, Stateless, Stuck])
async def test_the_checks_find_what_is_broken(broken: type[FakeStore], autojump_clock: Any) -> None:
    disks: dict[str, Disk] = {}

    def open_store(name: str) -> AbstractAsyncContextManager[Any]:
        return broken(disks.setdefault(name, Disk()))

    with pytest.raises((AssertionError, StoreError)):
        await check_store(open_store)
