"""What push holds for a peer is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from heartline import (
    History,
    HistoryGap,
    InvalidArguments,
    Limits,
    PushError,
    Server,
    SlowPolicy,
)
from heartline.errors import ConfigurationError, RemoteProtocolError
from heartline.push import _part, _publisher
from heartline.push._publisher import MAX_TOPIC_NAME
from heartline.push._served import WINDOW_COUNT, WINDOW_SIZE
from heartline.push._subscription import MAX_WAITING, MAX_WAITING_SIZE
from heartline.push._wire import encode_update
from heartline.wire import CborSerializer, FrameType
from tests.engine import core_of, link_of
from tests.push.helpers import (
    HandPublisher,
    HandSubscriber,
    begin,
    open_client,
    open_hand_publisher,
    open_pair,
    open_topics,
    publish,
    settle,
    stop_reading,
    take,
    take_values,
)

CBOR = CborSerializer()

# The window of a subscriber.


@pytest.mark.parametrize("history", [History(), History(count=1), History(count=300)])
@pytest.mark.parametrize("policy", ["drop oldest", "block"])
async def test_the_window_counts_updates(history: History, policy: str, autojump_clock: MockClock) -> None:
    async with open_pair(history=history) as (server, client):
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
@pytest.mark.parametrize("policy", SlowPolicy)
async def test_the_window_counts_bytes(
    count: int, size: int, policy: SlowPolicy, autojump_clock: MockClock
) -> None:
    """However short the history: what has left it is still on its way to who has not confirmed it."""
    async with open_pair(history=History(count=count)) as (server, client):
        hand, number = await begin(client, policy=policy.value)
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
async def test_what_a_subscriber_cannot_take_ends_its_subscription_only(
    size: int, autojump_clock: MockClock
) -> None:
    limits = Limits(frame_size=10_000, message_size=10_000)
    async with open_topics() as server:
        async with open_client(server, limits=limits) as client, open_client(server) as other:
            async with client.subscribe("topic") as small, other.subscribe("topic") as topic:
                await publish(server, ["before", bytes(size), "behind"])
                assert await take_values(topic, 3) == ["before", bytes(size), "behind"]
                assert await take_values(small, 1) == ["before"]
                with pytest.raises(PushError, match=r"update 2 cannot.*the peer accepts 10000"):
                    await take(small, 1)
                assert server.subscribers("topic") == {other.id}
            async with client.subscribe("topic") as small:
                await publish(server, ["again"])
                assert await take_values(small, 1) == ["again"]
            assert client.statistics().links == 1


# Names and numbers.


@pytest.mark.parametrize("name", ["", "x" * (MAX_TOPIC_NAME + 1)])
async def test_a_topic_has_a_name(name: str, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        for use in (lambda: server.publish(name, 1), lambda: _declare(server, name)):
            with pytest.raises(ConfigurationError, match="text of 1 to 256 characters"):
                await use()
        with pytest.raises(InvalidArguments, match="text of 1 to 256 characters"):
            await client.subscribe(name).__aenter__()
        await server.publish("x" * MAX_TOPIC_NAME, 1)
        async with client.subscribe("x" * MAX_TOPIC_NAME):
            pass


async def _declare(server: Server, name: Any) -> None:
    server.declare_topic(name, history=History())


@pytest.mark.parametrize("name", [None, 5, b"bytes", ["list"]])
async def test_a_name_is_text(name: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        with pytest.raises((ConfigurationError, TypeError)):
            await server.publish(name, 1)
        with pytest.raises(InvalidArguments):
            await client.subscribe(name).__aenter__()


async def test_made_up_names_are_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_publisher, "MAX_TOPICS", 10)
    async with open_pair() as (server, client):
        await publish(server, [1], "published")
        server.declare_topic("declared", history=History(count=3))
        # What nobody listens to any more is forgotten, as often as it takes.
        for number in range(50):
            async with client.subscribe(f"made up {number}"):
                pass
        assert len(server.statistics().topics) <= 10
        hand = HandSubscriber(client)
        for key in range(8):
            await hand.subscribe(f"held {key}", key=key)
        with pytest.raises(InvalidArguments, match="there are 10 topics already"):
            await hand.subscribe("one too many", key=100)
        assert set(server.statistics().topics) == {"published", "declared", *(f"held {n}" for n in range(8))}
        await hand.subscribe("published", key=100)
        await hand.leave(0)
        await hand.subscribe("instead", key=101)
        # The publisher has places of its own, and as many.
        await publish(server, range(5), "declared")
        assert server.statistics().topics["declared"].retained == 3
        for number in range(10):
            await publish(server, [1], f"own {number}")
        with pytest.raises(ConfigurationError, match="there are 20 topics already, the limit is 20"):
            await server.publish("one too many", 1)


async def test_a_peer_has_so_many_subscriptions(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_part, "MAX_SUBSCRIPTIONS", 5)
    async with open_pair() as (_, client):
        hand = HandSubscriber(client)
        for key in range(5):
            await hand.subscribe("topic", key=key)
        with pytest.raises(InvalidArguments, match="5 subscriptions at most"):
            await hand.subscribe("topic", key=5)
        await hand.leave(2)
        await hand.subscribe("topic", key=5)


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


@pytest.mark.parametrize("policy", [SlowPolicy.DROP_OLDEST, SlowPolicy.KEEP_NEWEST])
async def test_waiting_updates_are_bounded_in_bytes(policy: SlowPolicy, autojump_clock: MockClock) -> None:
    size = MAX_WAITING_SIZE // 8
    async with open_hand_publisher(reconnect=None) as (hand, client):
        async with client.subscribe("topic", policy=policy) as topic:
            for offset in range(1, 11):
                await hand.push(offset, bytes(size))
                await take(topic, 1)
            await hand.notice(11, "gap", 10, True)
            await hand.push(11, bytes(size))
            with pytest.raises(HistoryGap):
                await take(topic, 1)
            # What was taken counts no more.
            await _flood(hand, range(12, 20), bytes(size))
            assert core_of(client).link is not None
            await hand.push(20)
            # Who keeps the newest holds only that.
            assert (core_of(client).link is None) == (policy is not SlowPolicy.KEEP_NEWEST)


async def test_a_gap_without_an_end_is_bounded(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic"):
        for offset in range(1, MAX_WAITING + 2):
            await hand.notice(offset, "gap", offset, False)
        assert core_of(client).link is None
