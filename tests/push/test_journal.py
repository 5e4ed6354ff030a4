"""Updates on their way into the store: committed together, published afterwards, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heartline import History, Level, Position, Server, TopicSettings
from heartline.errors import ConfigurationError, SerializationError, StoreError
from heartline.push import _journal
from heartline.push._served import WINDOW_SIZE
from heartline.push._types import POLICIES
from tests.push.helpers import next_update, open_client, open_topics, settle, take_values
from tests.push.stores import Disk, FakeStore


@asynccontextmanager
async def open_durable(
    disk: Disk | None = None, pause: float = 1.0, **settings: Any
) -> AsyncIterator[tuple[Server, FakeStore]]:
    """A server with a topic whose store takes a second for a batch."""
    store = FakeStore(disk or Disk(), pause=pause)
    topics = {"topic": TopicSettings(store=store, **settings), "other": TopicSettings(store=store)}
    async with open_topics(topics=topics) as server:
        yield server, store


@pytest.mark.parametrize("wait", [None, "stored", "sent", "confirmed"])
async def test_nobody_knows_an_update_before_it_is_stored(wait: Any, autojump_clock: MockClock) -> None:
    async with open_durable() as (server, store), open_client(server) as client:
        async with client.subscribe("topic") as topic, trio.open_nursery() as nursery:

            async def publish() -> None:
                receipt = await server.publish("topic", "value", wait=wait)
                assert (receipt.offset, receipt.level) == (1, Level.STORED)
                assert store.disk.topics["topic"].last == 1

            nursery.start_soon(publish)
            await trio.sleep(0.9)
            assert server.statistics().topics["topic"].last_offset == 0
            assert not topic._following._waiting
            assert await take_values(topic, 1) == ["value"]
            assert trio.current_time() == pytest.approx(1.0)
            nursery.start_soon(topic.__anext__)
            await settle()
            nursery.cancel_scope.cancel()


async def test_without_a_store_an_update_is_only_received() -> None:
    async with open_topics() as server:
        assert (await server.publish("topic", 1)).level is Level.RECEIVED
        with pytest.raises(ConfigurationError, match=r"topic 'topic' has no store.*TopicSettings\.store"):
            await server.publish("topic", 2, wait="stored")


async def test_who_waits_is_committed_together(autojump_clock: MockClock) -> None:
    """While a batch is written the next one gathers, over all topics of the store."""
    async with open_durable() as (server, store), trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(server.publish, ("topic", "other")[number % 2], number)
            await trio.sleep(0.01)
    assert [len(batch) for batch in store.batches] == [1, 99]
    assert [[u.offset for u in store.batches[1] if u.topic == topic] for topic in ("topic", "other")] == [
        list(range(2, 51)),
        list(range(1, 51)),
    ]


@pytest.mark.parametrize("error", [StoreError("the disk is full"), ValueError("a bug")])
async def test_what_was_not_stored_is_not_published(error: Exception, autojump_clock: MockClock) -> None:
    """Everyone of the batch is told, nobody else is, and the offsets are given to what comes next."""
    async with open_durable() as (server, store), open_client(server) as client:
        async with client.subscribe("topic") as topic, trio.open_nursery() as nursery:
            store.planted.append(error)
            failed = []

            async def fail(value: int) -> None:
                with pytest.raises(
                    StoreError, match=f"topic 'topic': the update was not stored: {error}"
                ) as e:
                    await server.publish("topic", value)
                assert e.value.__cause__ is error
                failed.append(e.value)

            for value in range(3):
                nursery.start_soon(fail, value)
            await trio.sleep(0.5)
            # These were given offsets behind those that fail.
            for _ in range(2):
                nursery.start_soon(server.publish, "topic", "stored")
            assert await take_values(topic, 2) == ["stored", "stored"]
            assert len({id(each) for each in failed}) == 3
        assert store.disk.topics["topic"].last == 2
        assert server.statistics().topics["topic"].last_offset == 2


async def test_arrays_that_get_another_offset(autojump_clock: MockClock) -> None:
    numpy = pytest.importorskip("numpy")
    async with open_durable() as (server, store), open_client(server) as client:
        async with client.subscribe("topic") as topic, trio.open_nursery() as nursery:
            store.planted.append(StoreError("planted"))

            async def fail() -> None:
                with pytest.raises(StoreError):
                    await server.publish("topic", "fails")

            nursery.start_soon(fail)
            await trio.sleep(0.5)
            nursery.start_soon(server.publish, "topic", {"weights": numpy.arange(5)})
            update = await next_update(topic)
            assert update.offset == 1
            assert update.value["weights"].tolist() == [0, 1, 2, 3, 4]


async def test_a_value_that_cannot_be_sent_is_refused_before_the_store() -> None:
    async with open_durable() as (server, store):
        with pytest.raises(SerializationError):
            await server.publish("topic", object())
        assert not store.batches


# Cancelling, and the end.


async def test_cancelling_takes_back_what_waits(autojump_clock: MockClock) -> None:
    async with open_durable() as (server, store), trio.open_nursery() as nursery:
        nursery.start_soon(server.publish, "topic", 1)
        await trio.sleep(0.5)
        with trio.move_on_after(0.1) as scope:
            await server.publish("topic", 2)
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(0.6)
        assert (await server.publish("topic", 3)).offset == 2
    assert store.disk.topics["topic"].last == 2


async def test_what_is_being_written_has_an_outcome(autojump_clock: MockClock) -> None:
    async with open_durable() as (server, store):
        with trio.move_on_after(0.1):
            receipt = await server.publish("topic", 1)
        assert receipt.offset == 1
        assert trio.current_time() == pytest.approx(1.0)


@pytest.mark.parametrize("planted", ["before", "after"])
async def test_the_end_of_the_server_leaves_no_publisher_behind(
    planted: str, autojump_clock: MockClock
) -> None:
    failures = []

    async def publish(server: Server, value: int) -> None:
        with pytest.raises(StoreError, match="its publisher has ended") as caught:
            await server.publish("topic", value)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        async with open_durable() as (server, store):
            store.planted.append(planted)
            nursery.start_soon(publish, server, 1)
            await trio.sleep(0.5)
            nursery.start_soon(publish, server, 2)
            await trio.sleep(10)
    assert len(failures) == 2
    with pytest.raises(StoreError, match="its publisher has ended"):
        await server.publish("topic", 3)


# Bounds.


@pytest.mark.parametrize("bound", ["QUEUE_COUNT", "QUEUE_SIZE"])
async def test_the_queue_is_bounded(
    bound: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, bound, 10 if bound == "QUEUE_COUNT" else 10_000)
    async with open_durable() as (server, store), trio.open_nursery() as nursery:
        for value in range(35):
            nursery.start_soon(server.publish, "topic", bytes([value]) * 1000)
    assert sum(map(len, store.batches)) == 35
    assert max(map(len, store.batches)) == 10
    assert server.statistics().topics["topic"].last_offset == 35


async def test_a_long_update_passes_the_queue(autojump_clock: MockClock) -> None:
    async with open_durable() as (server, _):
        assert (await server.publish("topic", bytes(_journal.QUEUE_SIZE + 1))).offset == 1


async def test_publishers_wait_for_a_blocking_subscriber_with_what_is_on_its_way(
    autojump_clock: MockClock,
) -> None:
    """Those in the queue count: together they must not push out what the subscriber has not got."""
    long = bytes(WINDOW_SIZE)  # one of them fills the window
    async with open_durable(history=History(count=3)) as (server, _), open_client(server) as client:
        server.declare_topic("topic", policies=POLICIES)
        subscription = client.subscribe("topic", policy="block")
        async with subscription as topic, trio.open_nursery() as nursery:
            for value in range(8):
                nursery.start_soon(server.publish, "topic", [value, long])
            await trio.sleep(10)
            # As many as the history has, and one that was already sent if the subscriber was quick.
            assert server.statistics().topics["topic"].last_offset in (3, 4)
            assert sorted(value for value, _ in await take_values(topic, 8)) == list(range(8))
        assert server.statistics().topics["topic"].skipped == 0


# Over a restart.


async def test_history_age_and_epoch_go_on(autojump_clock: MockClock) -> None:
    disk, history = Disk(), History(count=3, age=100.0)
    async with open_durable(disk, history=history) as (server, _):
        for value in range(5):
            receipt = await server.publish("topic", value)
            disk.now += 40.0
    async with open_durable(disk, history=history) as (server, _), open_client(server) as client:
        topic = server.statistics().topics["topic"]
        assert (topic.last_offset, topic.retained) == (5, 2), "the third last is 120 seconds old"
        async with client.subscribe("topic", since="oldest") as updates:
            assert updates.position == Position(receipt.epoch, 3)
            assert await take_values(updates, 2) == [3, 4]
        await trio.sleep(30)
        assert server.statistics().topics["topic"].retained == 1


async def test_a_topic_nobody_published_on_keeps_its_epoch(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with open_durable(disk) as (server, _), open_client(server) as client:
        async with client.subscribe("topic") as topic:
            position = topic.position
    async with open_durable(disk) as (server, _), open_client(server) as client:
        await server.publish("topic", "first")
        async with client.subscribe("topic", since=position) as topic:
            assert await take_values(topic, 1) == ["first"]


async def test_a_store_with_a_hole_is_refused() -> None:
    disk = Disk()
    async with open_durable(disk, pause=0) as (server, _):
        for value in range(3):
            await server.publish("topic", value)
    del disk.topics["topic"].updates[2]
    with pytest.raises(StoreError, match="the store has update 1 of topic 'topic' after 1"):
        async with open_durable(disk):
            pass


@pytest.mark.parametrize(
    ("topics", "match"),
    [
        (5, "topics must be"),
        ({"topic": 5}, r"topics\['topic'\] must be a heartline\.TopicSettings, not 5"),
        ({"": TopicSettings()}, "a topic's name"),
    ],
)
async def test_wrong_topics_are_refused(topics: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        async with open_topics(topics=topics):
            pass


@pytest.mark.parametrize("field", ["history", "store", "fold"])
def test_wrong_settings_are_refused(field: str) -> None:
    wrong: Any = {field: 5}
    with pytest.raises(ConfigurationError, match=rf"TopicSettings\.{field} must .*, not 5"):
        TopicSettings(**wrong)


async def test_each_store_has_its_own_way(autojump_clock: MockClock) -> None:
    """A slow store does not hold up the topics of another."""
    slow, fast = FakeStore(Disk(), pause=60), FakeStore(Disk(), pause=1)
    topics = {"slow": TopicSettings(store=slow), "fast": TopicSettings(store=fast)}
    async with open_topics(topics=topics) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.publish, "slow", 1)
        await settle()
        await server.publish("fast", 1)
        assert trio.current_time() == pytest.approx(1.0)
