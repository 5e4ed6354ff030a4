"""A store on a node's disk: what it has confirmed survives every crash, and a torn batch is not there."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.errors import LocalProtocolError, StoreError
from heartline.push import SavedKey, StoredUpdate
from heartline.testing import Disk, DiskStore, Node, World, check_store


@pytest.mark.slow
async def test_it_keeps_the_rules_of_stores() -> None:
    disks: dict[str, Disk] = {}

    def open_store(name: str) -> AbstractAsyncContextManager[DiskStore]:
        return DiskStore(disks.setdefault(name, Disk(random.Random(name))))

    await check_store(open_store)


@pytest.mark.slow
async def test_it_keeps_them_when_the_power_goes_after_each_closing() -> None:
    disks: dict[str, Disk] = {}

    @asynccontextmanager
    async def open_store(name: str) -> AsyncIterator[DiskStore]:
        disk = disks.setdefault(name, Disk(random.Random(name)))
        try:
            async with DiskStore(disk) as store:
                yield store
        finally:
            disk.crash()

    await check_store(open_store)


def _update(offset: int, topic: str = "topic") -> StoredUpdate:
    key = SavedKey(key=str(offset), offset=offset, digest=b"digest")
    return StoredUpdate(topic=topic, offset=offset, payload=bytes(offset % 50), flags=0, key=key)


def test_what_was_confirmed_survives_crashes_at_any_moment() -> None:
    """Batches are there as a whole or not at all, and after a restart the next one follows."""
    torn = 0

    async def program(node: Node, confirmed: list[int]) -> None:
        nonlocal torn
        async with DiskStore(node.disk) as store:
            saved = await store.load("topic", "epoch")
            assert saved.epoch == "epoch"
            assert saved.last >= confirmed[-1]
            assert saved.last % 3 == 0, "a part of a batch"
            assert [update.offset for update in saved.updates] == list(range(1, saved.last + 1))
            assert [key.offset for key in saved.keys] == list(range(1, saved.last + 1))
            torn += saved.last > confirmed[-1]
            for first in range(saved.last + 1, 10_000, 3):
                await store.append([_update(first + number) for number in range(3)])
                confirmed.append(first + 2)

    async def main(world: World) -> None:
        confirmed = [0]
        node = world.node("a")
        node.start(program, confirmed)
        for _ in range(10):
            await trio.sleep(world.rng.uniform(0, 0.05))
            node.restart()
        await trio.sleep(0.1)
        assert confirmed[-1] > 0

    for seed in range(20):
        World(seed).run(main)
    assert torn, "no batch has survived unconfirmed: the crashes came too late"


def test_a_topic_goes_on_after_a_crash_in_its_epoch() -> None:
    async def serve(node: Node) -> None:
        async with DiskStore(node.disk) as store:
            topics = {"topic": heartline.TopicSettings(store=store)}
            async with heartline.open_server("memory://a", topics=topics) as server:
                while True:
                    receipt = await server.publish("topic", "value")
                    receipts.append((receipt.epoch, receipt.offset))
                    await node.sleep(1)

    async def main(world: World) -> None:
        world.node("a").start(serve)
        for _ in range(5):
            await trio.sleep(3)
            world.node("a").restart()
        await trio.sleep(3)

    receipts: list[tuple[str, int]] = []
    World(1).run(main)
    assert len({epoch for epoch, _ in receipts}) == 1
    offsets = [offset for _, offset in receipts]
    assert offsets == sorted(set(offsets))
    assert len(offsets) >= 15


@pytest.mark.parametrize(("after", "kept"), [(0.0, 0), (1e-6, 1)])
async def test_a_cancelled_append_ends_and_has_kept_all_or_none(
    after: float, kept: int, autojump_clock: MockClock
) -> None:
    """A batch that was begun is kept, so what is known of it and what is on the disk are the same."""
    disk = Disk(random.Random(1))
    async with DiskStore(disk) as store:
        await store.load("topic", "epoch")
        with trio.move_on_after(after):
            while True:
                await store.append([_update(1)])
                await trio.sleep_forever()
        await store.append([_update(kept + 1)])
    disk.crash()
    async with DiskStore(disk) as store:
        assert (await store.load("topic", "other")).last == kept + 1


async def test_ages_go_by_the_clock(autojump_clock: MockClock) -> None:
    disk, now = Disk(random.Random(1)), 100.0
    async with DiskStore(disk, clock=lambda: now) as store:
        await store.load("topic", "epoch")
        await store.append([_update(1)])
    now = 130.0
    async with DiskStore(disk, clock=lambda: now) as store:
        assert [update.age for update in (await store.load("topic", "")).updates] == [30.0]


async def test_what_is_refused(autojump_clock: MockClock) -> None:
    disk = Disk(random.Random(1))
    store = DiskStore(disk, name="mine")
    with pytest.raises(LocalProtocolError, match="open the store first"):
        await store.load("topic", "epoch")
    async with store:
        await store.load("topic", "epoch")
        with pytest.raises(LocalProtocolError, match="'mine' is open already"):
            await store.__aenter__()
        with pytest.raises(StoreError, match="update 2 of topic 'topic' does not follow 0"):
            await store.append([_update(2)])
        disk.write("filler", bytes(64 * 1024 * 1024 - 200))
        with pytest.raises(StoreError, match=r"the disk refuses: .*full"):
            await store.append([_update(number) for number in range(1, 9)])
        disk.write("filler", b"")
        await disk.sync("filler")
        await store.append([_update(1)])
        assert (await store.load("topic", "epoch")).last == 1
    assert disk.names == ("mine.0", "filler")
