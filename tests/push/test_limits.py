"""What push holds for a peer is bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from heartline import (
    Connection,
    Fold,
    Gap,
    History,
    InvalidArguments,
    Limits,
    LocalProtocolError,
    Position,
    PushError,
    SerializationError,
    Server,
    TopicSettings,
)
from heartline.errors import ConfigurationError, RemoteProtocolError
from heartline.push import SlowPolicy
from heartline.push._following import MAX_WAITING, MAX_WAITING_SIZE
from heartline.push._log import SHARED_SIZE
from heartline.push._served import WINDOW_COUNT, WINDOW_SIZE
from heartline.push._types import MAX_TOPIC_NAME, POLICIES
from heartline.wire import CborSerializer, FrameType
from heartline.wire.limits import LEAST_ITEMS
from tests.engine import core_of, link_of
from tests.push.helpers import (
    HandPublisher,
    begin,
    encode_update,
    next_update,
    open_client,
    open_hand_publisher,
    open_pair,
    open_topics,
    publish,
    settle,
    stop_reading,
    take,
    take_gap,
    take_values,
)

CBOR = CborSerializer()

# The window of a subscriber.


@pytest.mark.parametrize("history", [History(), History(count=1), History(count=300)])
@pytest.mark.parametrize("policy", ["drop oldest", "block"])
async def test_the_window_counts_updates(history: History, policy: str, autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=history) as (server, client):
        hand, number = await begin(client, policy=policy)
        for offset in range(1, 2 * WINDOW_COUNT):
            await server.publish("topic", offset, timeout=0)
        assert await hand.take_offsets() == list(range(1, WINDOW_COUNT + 1))
        await hand.confirm(number, 10)
        more = await hand.take_offsets()
        if history.count == 1:
            assert more == [WINDOW_COUNT + 1, 2 * WINDOW_COUNT - 1], "a gap and the newest"
        else:
            assert more == list(range(WINDOW_COUNT + 1, WINDOW_COUNT + 11))


@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("size", [30_000, 100_000, 3_000_000])
@pytest.mark.parametrize("policy", POLICIES)
async def test_the_window_counts_bytes(
    count: int, size: int, policy: SlowPolicy, autojump_clock: MockClock
) -> None:
    """However short the history: what has left it is still on its way to who has not confirmed it."""
    async with open_pair(blocking=True, history=History(count=count)) as (server, client):
        hand, number = await begin(client, policy=policy)
        most = WINDOW_SIZE // size + 1
        for _ in range(most + 5):
            await server.publish("topic", bytes(size), timeout=0)
            await settle()
        assert await hand.take_offsets() == list(range(1, most + 1))
        await hand.confirm(number, most)
        assert sum(len(frame.payload) >= size for frame in await hand.take()) <= most


async def test_a_part_confirmed_opens_the_window_by_that_part(autojump_clock: MockClock) -> None:
    size = 100_000
    async with open_pair() as (server, client):
        hand, number = await begin(client)
        await publish(server, [bytes(size)] * 100)
        in_window = WINDOW_SIZE // size + 1
        assert await hand.take_offsets() == list(range(1, in_window + 1))
        await hand.confirm(number, 3)
        assert await hand.take_offsets() == list(range(in_window + 1, in_window + 4))


async def test_a_subscriber_that_never_confirms_costs_a_window(autojump_clock: MockClock) -> None:
    """Whether it reads or not; and others do not notice."""
    async with open_topics(history=History(count=1)) as server:
        async with open_client(server) as client, open_client(server) as other:
            async with other.subscribe("topic") as topic:
                await begin(client)
                link = link_of(server.connections[client.id])
                stop_reading(client)
                for _ in range(300):
                    await server.publish("topic", bytes(50_000))
                    await take(topic, 1)
                    assert link.backlog <= WINDOW_SIZE + 2 * 50_000


@pytest.mark.parametrize("size", [20_000, 100_000])
@pytest.mark.parametrize("policy", ["drop oldest", "disconnect", "block"])
async def test_what_a_subscriber_cannot_take_is_lost_to_it_alone(
    size: int, policy: SlowPolicy, autojump_clock: MockClock
) -> None:
    """The gap is told once, and it goes on behind it; receipts say that the subscriber has not got it."""
    limits = Limits(frame_size=10_000, message_size=10_000)
    async with open_topics(blocking=True) as server:
        async with open_client(server, limits=limits) as client, open_client(server) as other:
            async with client.subscribe("topic", policy=policy) as small, other.subscribe("topic") as topic:
                await publish(server, ["before"])
                sent = await server.publish("topic", bytes(size), wait="sent")
                assert (sent.confirmed, sent.missing) == ({other.id}, {client.id})
                await publish(server, ["behind"])
                assert await take_values(topic, 3) == ["before", bytes(size), "behind"]
                before, gap, behind = await take(small, 3)
                assert (before.value, behind.value) == ("before", "behind")
                assert gap == Gap(topic="topic", epoch=before.epoch, first=2, last=2)
                assert server.statistics().topics["topic"].skipped == 1
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take, small, 2)
                    nursery.start_soon(take, topic, 2)
                    receipt = await server.publish("topic", bytes(size), wait="confirmed")
                    assert (receipt.confirmed, receipt.missing) == ({other.id}, {client.id})
                    await publish(server, ["end"])
            assert client.statistics().links == 1


async def test_the_newest_may_be_too_long_behind_a_gap(autojump_clock: MockClock) -> None:
    limits = Limits(frame_size=10_000, message_size=10_000)
    async with open_topics(history=History(count=2)) as server:
        first = await server.publish("topic", 1)
        await publish(server, [2, 3, 4, bytes(20_000)])
        async with open_client(server, limits=limits) as client:
            async with client.subscribe("topic", since=Position(first.epoch, 1)) as topic:
                gaps = await take(topic, 2)
                assert [(gap.first, gap.last) for gap in gaps] == [(2, 4), (5, 5)]
                await publish(server, ["behind"])
                assert await take_values(topic, 1) == ["behind"]
                assert topic.position.offset == 5


async def test_what_is_too_long_for_this_side_is_not_published(autojump_clock: MockClock) -> None:
    limits = Limits(frame_size=10_000, message_size=10_000)
    async with open_topics(limits=limits) as server:
        await server.publish("topic", bytes(9_900))
        with pytest.raises(LocalProtocolError, match=r"of 2\d{4} bytes.*10000 bytes .Limits.message_size"):
            await server.publish("topic", bytes(20_000))
        assert server.statistics().topics["topic"].last_offset == 1


FEW = Limits(items=20_000)
MANY = [0] * 20_000


@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
@pytest.mark.parametrize("policy", ["drop oldest", "disconnect", "keep newest"])
async def test_an_update_of_more_items_than_a_subscriber_takes_is_lost_to_it_alone(
    policy: SlowPolicy, serializer: str, autojump_clock: MockClock
) -> None:
    """As one that is too long; an array of as many numbers is not lost."""
    async with open_topics(serializer=serializer) as server:
        async with open_client(server, limits=FEW) as client, open_client(server) as other:
            async with client.subscribe("topic", policy=policy) as small, other.subscribe("topic") as topic:
                await publish(server, ["before"])
                assert await take_values(small, 1) == ["before"]
                sent = await server.publish("topic", MANY, wait="sent")
                assert (sent.confirmed, sent.missing) == ({other.id}, {client.id})
                gap, _ = await take_gap(small)
                assert (gap.first, gap.last) == (2, 2)
                await publish(server, [np.zeros(50_000), [0] * 19_999])
                await trio.testing.wait_all_tasks_blocked()  # both have come
                values = await take_values(small, 2 if policy != "keep newest" else 1)
                assert values[-1] == [0] * 19_999
                assert [len(update.value) for update in await take(topic, 4)] == [6, 20_000, 50_000, 19_999]
                assert server.statistics().topics["topic"].skipped == 1


async def test_an_update_of_too_many_items_for_this_side_is_not_published(autojump_clock: MockClock) -> None:
    async with open_topics(limits=FEW) as server:
        await server.publish("topic", MANY[1:])
        with pytest.raises(SerializationError, match=r"more than 20000 items .*Limits\.items"):
            await server.publish("topic", MANY)
        assert server.statistics().topics["topic"].last_offset == 1


async def test_a_state_of_more_items_than_a_subscriber_takes(autojump_clock: MockClock) -> None:
    fold = Fold(initial=list, apply=lambda state, update: state + update)
    async with open_topics(topics={"topic": TopicSettings(fold=fold)}) as server:
        await publish(server, [MANY[:15_000]])
        async with open_client(server, limits=FEW) as client:
            async with client.subscribe("topic", since="snapshot") as topic:
                assert len((await next_update(topic)).value) == 15_000
            await publish(server, [MANY[:15_000]])
            async with client.subscribe("topic", since="snapshot") as topic:
                with pytest.raises(PushError, match="the state after update 2 is larger than it accepts"):
                    await next_update(topic)


async def test_an_update_of_too_many_items_is_not_built(autojump_clock: MockClock) -> None:
    """It fails as one that cannot be decoded, and the subscription goes on."""
    async with open_hand_publisher(limits=FEW) as (hand, client), client.subscribe("topic") as topic:
        await hand.push(1, MANY)
        await hand.push(2, "behind")
        with pytest.raises(SerializationError, match="more than 20000 items"):
            await anext(topic)
        assert (await next_update(topic)).value == "behind"


async def test_a_notice_of_many_items_is_not_built(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic") as topic:
        await hand.notice(1, *MANY)
        with pytest.raises(RemoteProtocolError, match="malformed notice in PUSH: more than 16384 items"):
            await anext(topic)


def test_nobody_refuses_the_items_of_an_update_that_many_share() -> None:
    assert SHARED_SIZE <= LEAST_ITEMS


# Names and numbers.


@pytest.mark.parametrize("name", ["", "x" * (MAX_TOPIC_NAME + 1)])
async def test_a_topic_has_a_name(name: str, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        for use in (lambda: server.publish(name, 1), lambda: _declare(server, name)):
            with pytest.raises(ConfigurationError, match="text of 1 to 256 characters"):
                await use()
        with pytest.raises(InvalidArguments, match="text of 1 to 256 characters"):
            await _ask(client, name)
        await server.publish("x" * MAX_TOPIC_NAME, 1)
        async with client.subscribe("x" * MAX_TOPIC_NAME):
            pass


async def test_a_topic_has_a_name_that_can_be_sent(autojump_clock: MockClock) -> None:
    """Half a surrogate pair is text to Python, and nobody could ask for a topic with it."""
    name = "half a \ud83d"
    async with open_pair() as (server, client):
        uses: list[Callable[[], Awaitable[Any]]] = [
            lambda: server.publish(name, 1),
            lambda: _declare(server, name),
            lambda: server.delete_topic(name),
            lambda: client.publish(name, 1),
            lambda: _subscribe(client, name),
        ]
        for use in uses:
            with pytest.raises(ConfigurationError, match="Unicode text of 1 to 256 characters"):
                await use()


async def _subscribe(client: Connection, name: str) -> None:
    async with client.subscribe(name):
        pass


async def _ask(client: Connection, name: Any) -> None:
    """Ask as a peer does that does not look at the name before."""
    await client.service("$push").subscribe(name, None, "drop oldest", 1)


async def _declare(server: Server, name: Any) -> None:
    server.declare_topic(name, history=History())


@pytest.mark.parametrize("name", [None, 5, b"bytes", ["list"]])
async def test_a_name_is_text(name: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        with pytest.raises((ConfigurationError, TypeError)):
            await server.publish(name, 1)
        with pytest.raises(InvalidArguments):
            await _ask(client, name)


# What waits at a subscriber.


async def test_waiting_updates_are_bounded_in_number(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic") as topic:
        await _flood(hand, range(1, MAX_WAITING + 1))
        assert core_of(client).link is not None
        await hand.push(MAX_WAITING + 1)
        assert core_of(client).link is None
        assert len(await take(topic, MAX_WAITING)) == MAX_WAITING
        with pytest.raises(RemoteProtocolError, match=f"more than {MAX_WAITING} updates"):
            await take(topic, 1)


async def _flood(hand: HandPublisher, offsets: range, value: Any = None) -> None:
    for offset in offsets:
        link_of(hand.connection).put(FrameType.PUSH, 0, 7, encode_update(CBOR, offset, value)[0])
    await settle()


@pytest.mark.parametrize("policy", ["drop oldest", "keep newest"])
async def test_waiting_updates_are_bounded_in_bytes(policy: SlowPolicy, autojump_clock: MockClock) -> None:
    size = MAX_WAITING_SIZE // 8
    async with open_hand_publisher(reconnect=None) as (hand, client):
        async with client.subscribe("topic", policy=policy) as topic:
            for offset in range(1, 11):
                await hand.push(offset, bytes(size))
                await take(topic, 1)
            await hand.notice(11, "gap", 10, True)
            await hand.push(11, bytes(size))
            if policy == "drop oldest":
                await take_gap(topic)
            else:
                await take(topic, 1)
            # What was taken counts no more.
            await _flood(hand, range(12, 20), bytes(size))
            assert core_of(client).link is not None
            await hand.push(20)
            # Who keeps the newest holds only that.
            assert (core_of(client).link is None) == (policy != "keep newest")


async def test_a_gap_without_an_end_is_bounded(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic"):
        for offset in range(1, MAX_WAITING + 2):
            await hand.notice(offset, "gap", offset, False)
        assert core_of(client).link is None
