"""What push holds for a peer is bounded, and a peer that breaks the rules ends its own connection only."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import (
    OLDEST,
    Connection,
    ConnectionLost,
    History,
    HistoryGap,
    InvalidArguments,
    Limits,
    Lost,
    Position,
    PushError,
    SerializationError,
    Server,
    SlowPolicy,
)
from heartline.errors import ConfigurationError, RemoteProtocolError
from heartline.push import _part, _publisher
from heartline.push._publisher import MAX_TOPIC_NAME
from heartline.push._subscription import MAX_WAITING, MAX_WAITING_SIZE
from heartline.push._topic import WINDOW_COUNT, WINDOW_SIZE
from heartline.push._wire import CONFIRM, LEAVE, NOTICE, PUSH_HEAD, encode_update
from heartline.wire import CborSerializer, Flag, FrameType
from tests.push.helpers import (
    HandPublisher,
    HandSubscriber,
    open_client,
    open_hand_publisher,
    open_pair,
    open_topics,
    publish,
    run,
    settle,
    take,
    take_values,
)

CBOR = CborSerializer()
HUGE = 2**64 - 1

# The window of a subscriber.


async def begin(client: Connection, **settings: Any) -> tuple[HandSubscriber, int]:
    """A subscriber by hand that is ready, and its number."""
    hand = HandSubscriber(client)
    number, _, position = await hand.subscribe("topic", **settings)
    await hand.confirm(number, position)
    return hand, number


def stop_reading(client: Connection) -> None:
    """From now on this client takes nothing from its transport."""

    async def never(_most: int) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    assert client.link is not None
    client.link.stream.receive_some = never  # type: ignore[method-assign, assignment]


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
                link = server.connections[client.id].link
                assert link is not None
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
                with pytest.raises(PushError, match=r"update 2 cannot be sent.*the peer accepts 10000"):
                    await take(small, 1)
                assert server.subscribers("topic") == {other.id}
            async with client.subscribe("topic") as small:
                await publish(server, ["again"])
                assert await take_values(small, 1) == ["again"]
            assert client.statistics().links == 1


async def test_a_link_that_is_stuck_is_given_up_and_nobody_else_notices(autojump_clock: MockClock) -> None:
    async with open_topics() as server, open_client(server) as client, open_client(server) as other:
        names = [f"topic {n}" for n in range(12)]
        hand = HandSubscriber(client)
        for key, name in enumerate(names):
            number, _, position = await hand.subscribe(name, key=key)
            await hand.confirm(number, position)
        stop_reading(client)
        events = server.events()
        async with other.subscribe(names[-1], since=OLDEST) as topic:
            for name in names:
                await publish(server, [bytes(40_000)] * 30, name)
            assert len(await take(topic, 30)) == 30
        async for event in events:
            if isinstance(event, Lost) and event.connection.id == client.id:
                assert "does not read" in str(event.reason)
                break


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


# Peers that break the rules: a subscriber.

Break = Callable[[HandSubscriber, int], None]

WRONG_CONFIRMATIONS: dict[str, Break] = {
    "beyond what was sent": lambda hand, number: hand.post(number, CONFIRM.pack(11)),
    "less than before": lambda hand, number: hand.post(number, CONFIRM.pack(4)),
    "far beyond": lambda hand, number: hand.post(number, CONFIRM.pack(HUGE - 1)),
    "of a subscription that there is not": lambda hand, number: hand.post(number + 1, CONFIRM.pack(0)),
    "too short": lambda hand, number: hand.post(number, b"\0" * 7),
    "too long": lambda hand, number: hand.post(number, b"\0" * 9),
    "empty": lambda hand, number: hand.post(number, b""),
}


@pytest.mark.parametrize("how", WRONG_CONFIRMATIONS)
async def test_a_wrong_confirmation_ends_the_connection(how: str, autojump_clock: MockClock) -> None:
    async with open_topics() as server, open_client(server) as client, open_client(server) as other:
        events = server.events()
        async with other.subscribe("topic") as topic:
            hand, number = await begin(client)
            await publish(server, range(10))
            await hand.confirm(number, 5)
            WRONG_CONFIRMATIONS[how](hand, number)
            await settle()
            async for event in events:
                if isinstance(event, Lost):
                    assert event.connection.id == client.id
                    assert isinstance(event.reason, RemoteProtocolError)
                    assert "CONFIRM" in str(event.reason)
                    break
            await publish(server, [10])
            assert len(await take(topic, 11)) == 11


@pytest.mark.parametrize("offset", [4, 6, 100])
async def test_the_first_confirmation_is_of_the_position(offset: int, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        await publish(server, range(5))
        hand = HandSubscriber(client)
        number, _, position = await hand.subscribe("topic")
        assert position == 5
        await hand.confirm(number, offset)
        assert client.link is None


async def test_a_goodbye_is_taken_at_any_time(autojump_clock: MockClock) -> None:
    """Also from who never was there, or has gone already."""
    async with open_pair() as (server, client):
        hand, number = await begin(client)
        for key in (1, 1, 2, number, 2**32 - 1):
            await hand.leave(key)
        assert client.link is not None
        assert server.subscribers("topic") == frozenset()


frames = st.lists(
    st.tuples(
        st.sampled_from([FrameType.CONFIRM, FrameType.PUSH]),
        st.integers(0, 3),
        st.binary(max_size=12) | st.builds(CONFIRM.pack, st.integers(0, 12) | st.sampled_from([LEAVE])),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(frames)
def test_whatever_a_subscriber_sends_harms_nobody_else(sent: list[tuple[int, int, bytes]]) -> None:
    async def main() -> None:
        async with open_topics() as server, open_client(server) as other:
            async with other.subscribe("topic") as topic:
                async with open_client(server, reconnect=None) as client:
                    hand, _ = await begin(client)
                    await publish(server, range(10))
                    await settle()
                    for frame_type, number, payload in sent:
                        if client.link is not None:
                            hand.post(number, payload, frame_type)
                            await settle()
                    await publish(server, range(10, 12))
                    assert await take_values(topic, 12) == list(range(12))
                    if client.link is None:
                        with pytest.raises((ConnectionLost, RemoteProtocolError, PushError, Exception)):
                            await client.wait_open()

    run(main)


# Peers that break the rules: a publisher.


def update(offset: int) -> bytes:
    return encode_update(CBOR, offset, offset)[0]


WRONG_PUSHES: dict[str, tuple[int, bytes]] = {
    "again": (0, update(3)),
    "older": (0, update(1)),
    "not the next": (0, update(5)),
    "the last number there is": (0, update(HUGE)),
    "empty": (0, b""),
    "a part of a head": (0, update(4)[:8]),
    "an envelope without a head": (Flag.RAW, struct.pack("!I", 5) + b"x" * 5),
    "an envelope that is cut off": (Flag.RAW, b"\0\0"),
    "a notice that is no CBOR": (0, PUSH_HEAD.pack(NOTICE, 4) + b"\xff"),
    "an empty notice": (0, PUSH_HEAD.pack(NOTICE, 4)),
    **{
        f"a notice {what!r}": (0, PUSH_HEAD.pack(NOTICE, 4) + CBOR.encode(what, []))
        for what in (
            None,
            [],
            ["gap"],
            ["gap", -1, True],
            ["gap", HUGE, True],
            ["gap", 2**70, True],
            ["gap", 2, True],
            ["gap", "5", True],
            ["gap", 5, 1],
            ["end"],
            ["end", 5],
            ["slow", b"bytes"],
            ["other", "reason"],
        )
    },
}


@pytest.mark.parametrize("how", WRONG_PUSHES)
async def test_a_wrong_push_ends_the_connection(how: str, autojump_clock: MockClock) -> None:
    flags, payload = WRONG_PUSHES[how]
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic") as topic:
        for offset in (1, 2, 3):
            await hand.push(offset, offset)
        assert await take_values(topic, 2) == [1, 2]
        await hand.post(payload, flags)
        assert client.link is None
        assert await take_values(topic, 1) == [3], "it had arrived"
        with pytest.raises(RemoteProtocolError):
            await take(topic, 1)


async def test_a_push_that_nobody_is_subscribed_to_is_skipped(autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client), client.subscribe("topic") as topic:
        await hand.push(1, number=8)
        await hand.post(b"", number=9)
        await hand.push(1, "mine")
        assert await take_values(topic, 1) == ["mine"]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, Flag.RAW]),
            st.binary(max_size=20)
            | st.builds(
                lambda content, offset, rest: PUSH_HEAD.pack(content, offset) + rest,
                st.sampled_from([0, 0, 1, 2, 99]),
                st.integers(0, 4) | st.just(HUGE),
                st.binary(max_size=10)
                | st.lists(
                    st.sampled_from(["gap", "slow", "end", True, False]) | st.integers(-1, 9), max_size=3
                ).map(lambda what: CBOR.encode(what, [])),
            ),
        ),
        max_size=5,
    ),
    st.sampled_from(SlowPolicy),
)
def test_whatever_a_publisher_sends_is_an_update_or_an_error(
    sent: list[tuple[int, bytes]], policy: SlowPolicy
) -> None:
    async def main() -> None:
        async with open_hand_publisher(reconnect=None) as (hand, client):
            async with client.subscribe("topic", policy=policy) as topic:
                for flags, payload in sent:
                    if client.link is not None:
                        await hand.post(payload, flags)
                offset = topic.position.offset
                with trio.move_on_after(1):
                    while True:
                        try:
                            (update,) = await take(topic, 1)
                        except (HistoryGap, SerializationError):
                            continue
                        except (PushError, RemoteProtocolError):
                            return
                        assert update.offset > offset
                        offset = update.offset

    run(main)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        [],
        [7, "epoch"],
        [7, "epoch", 0, 0],
        ["7", "epoch", 0],
        [-1, "epoch", 0],
        [2**32, "epoch", 0],
        [7, None, 0],
        [7, "epoch", -1],
        [7, "epoch", HUGE],
        [7, "epoch", "0"],
    ],
)
async def test_a_wrong_answer_to_a_subscription(answer: Any, autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client):
        hand.answer = answer
        with pytest.raises(RemoteProtocolError, match="malformed answer to a subscription"):
            await client.subscribe("topic").__aenter__()
        await settle()
        assert hand.confirmed == [(1, LEAVE)], "whatever that was, it is over"


async def test_one_number_for_two_subscriptions(autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client), client.subscribe("topic"):
        with pytest.raises(RemoteProtocolError, match="the number 7 to two subscriptions"):
            await client.subscribe("topic").__aenter__()
        await settle()
        assert hand.confirmed == [(7, 0), (2, LEAVE)]


async def test_a_publisher_that_goes_on_somewhere_else(autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client):
        hand.answer = [7, "epoch", 8]
        subscription = client.subscribe("topic", since=Position("epoch", 5))
        with pytest.raises(RemoteProtocolError, match="goes on at 8, not at 5"):
            await subscription.__aenter__()


async def test_waiting_updates_are_bounded_in_number(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic") as topic:
        await _flood(hand, range(1, MAX_WAITING + 1))
        assert client.link is not None
        await hand.push(MAX_WAITING + 1)
        assert client.link is None
        assert len(await take(topic, MAX_WAITING)) == MAX_WAITING
        with pytest.raises(RemoteProtocolError, match=f"more than {MAX_WAITING} updates"):
            await take(topic, 1)


async def _flood(hand: HandPublisher, offsets: range, value: Any = None) -> None:
    for offset in offsets:
        hand.connection.post(FrameType.PUSH, 0, 7, encode_update(CBOR, offset, value)[0])
    await settle()


@pytest.mark.parametrize("policy", [SlowPolicy.DROP_OLDEST, SlowPolicy.KEEP_NEWEST])
async def test_waiting_updates_are_bounded_in_bytes(policy: SlowPolicy, autojump_clock: MockClock) -> None:
    size = MAX_WAITING_SIZE // 8
    async with open_hand_publisher(reconnect=None) as (hand, client):
        async with client.subscribe("topic", policy=policy) as topic:
            # What was taken counts no more.
            for offset in range(1, 21):
                await hand.push(offset, bytes(size))
                await take(topic, 1)
                if offset == 10:
                    await hand.notice(11, "gap", 10, True)
                    await hand.push(11, bytes(size))
                    with pytest.raises(HistoryGap):
                        await take(topic, 1)
                    break
            await _flood(hand, range(12, 20), bytes(size))
            assert client.link is not None
            await hand.push(20)
            # Who keeps the newest holds only that.
            assert (client.link is None) == (policy is not SlowPolicy.KEEP_NEWEST)


async def test_a_gap_without_an_end_is_bounded(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic"):
        for offset in range(1, MAX_WAITING + 2):
            await hand.notice(offset, "gap", offset, False)
        assert client.link is None
