"""A peer that breaks the rules of push ends its own connection, and no other."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cbor2
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import (
    Closed,
    Gap,
    History,
    InvalidArguments,
    Position,
    PushError,
    SerializationError,
)
from heartline.errors import RemoteProtocolError
from heartline.push import SlowPolicy
from heartline.push._types import POLICIES
from heartline.push._wire import LEAVE, NOTICE, OFFSET, PUSH_HEAD
from heartline.wire import CborSerializer, Flag, FrameType
from tests.engine import core_of, link_of
from tests.push.helpers import (
    HandSubscriber,
    begin,
    encode_update,
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


# A subscriber.

Break = Callable[[HandSubscriber, int], None]

WRONG_CONFIRMATIONS: dict[str, Break] = {
    "beyond what was sent": lambda hand, number: hand.post(number, OFFSET.pack(11)),
    "less than before": lambda hand, number: hand.post(number, OFFSET.pack(4)),
    "far beyond": lambda hand, number: hand.post(number, OFFSET.pack(HUGE - 1)),
    "of a subscription that there is not": lambda hand, number: hand.post(number + 1, OFFSET.pack(0)),
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
                if isinstance(event, Closed):
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
        assert core_of(client).link is None


@pytest.mark.parametrize("rest", [[], ["snapshot"]])
async def test_a_position_beyond_all_offsets_is_refused(rest: list[str], autojump_clock: MockClock) -> None:
    """No gap could be told that begins behind it."""
    async with open_pair() as (server, client):
        await publish(server, range(3))
        hand = HandSubscriber(client)
        with pytest.raises(InvalidArguments, match="since"):
            await hand.subscribe("topic", ["another life", HUGE, *rest])
        number, _, position = await hand.subscribe("topic", ["another life", HUGE - 1])
        await hand.confirm(number, position)
        assert (await hand.take_offsets())[0] == HUGE, "the gap begins there"
        assert core_of(client).link is not None


async def test_a_goodbye_is_taken_at_any_time(autojump_clock: MockClock) -> None:
    """Also from who never was there, or has gone already."""
    async with open_pair() as (server, client):
        hand, number = await begin(client)
        for key in (1, 1, 2, number, 2**32 - 1):
            await hand.leave(key)
        assert core_of(client).link is not None
        assert server.subscribers("topic") == frozenset()


async def test_a_peer_that_accepts_nothing_is_given_up(autojump_clock: MockClock) -> None:
    """It does not get in the way of the publisher, and of no other subscriber."""
    async with open_topics(history=History(count=1)) as server, open_client(server) as client:
        async with open_client(server) as other, other.subscribe("topic") as topic:
            await begin(client)
            await publish(server, [bytes(100)] * 3)
            link = link_of(server.connections[client.id])
            limits = link.session.outbox.limits
            link.session.outbox.open(msgspec.structs.replace(limits, frame_size=10, message_size=10))
            await publish(server, [bytes(100)])
            await settle()
            assert core_of(client).link is not link
            assert len(await take(topic, 4)) == 4


frames = st.lists(
    st.tuples(
        st.sampled_from([FrameType.CONFIRM, FrameType.PUSH]),
        st.integers(0, 3),
        st.binary(max_size=12) | st.builds(OFFSET.pack, st.integers(0, 12) | st.sampled_from([LEAVE])),
    ),
    max_size=6,
)


@given(frames)
def test_whatever_a_subscriber_sends_harms_nobody_else(sent: list[tuple[int, int, bytes]]) -> None:
    async def main() -> None:
        async with open_topics() as server, open_client(server) as other:
            async with other.subscribe("topic") as topic, open_client(server, reconnect=None) as client:
                hand, number = await begin(client)
                await publish(server, range(10))
                confirmed: int | None = 0
                for frame_type, target, payload in sent:
                    hand.post(target, payload, frame_type)
                    await settle()
                    allowed = True
                    if frame_type == FrameType.CONFIRM and payload == OFFSET.pack(LEAVE):
                        confirmed = None if target == 1 else confirmed  # the goodbye goes by the key
                    elif frame_type == FrameType.CONFIRM:
                        offset = int.from_bytes(payload, "big")
                        allowed = confirmed is not None and target == number and confirmed <= offset <= 10
                        allowed = allowed and len(payload) == OFFSET.size
                        confirmed = offset
                    assert (core_of(client).link is not None) == allowed
                    if not allowed:
                        break
                await publish(server, range(10, 12))
                assert await take_values(topic, 12) == list(range(12))

    run(main)


# A publisher.


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
    "a notice that is no CBOR": (0, PUSH_HEAD.pack(4, NOTICE) + b"\xff"),
    "an empty notice": (0, PUSH_HEAD.pack(4, NOTICE)),
    **{
        f"a notice {what!r}": (0, PUSH_HEAD.pack(4, NOTICE) + cbor2.dumps(what))
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
        assert core_of(client).link is None
        assert await take_values(topic, 1) == [3], "it had arrived"
        with pytest.raises(RemoteProtocolError):
            await take(topic, 1)


@pytest.mark.parametrize("offset", [0, 1, 3, HUGE])
async def test_who_keeps_the_newest_takes_only_newer_ones(offset: int, autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client):
        async with client.subscribe("topic", policy="keep newest") as topic:
            await hand.push(3, "newest")
            await hand.push(offset)
            assert core_of(client).link is None
            assert await take_values(topic, 1) == ["newest"]


async def test_a_push_that_nobody_is_subscribed_to_is_skipped(autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client), client.subscribe("topic") as topic:
        await hand.push(1, number=8)
        await hand.post(b"", number=9)
        await hand.push(1, "mine")
        assert await take_values(topic, 1) == ["mine"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, Flag.RAW]),
            st.binary(max_size=20)
            | st.builds(
                lambda content, offset, rest: PUSH_HEAD.pack(offset, content) + rest,
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
    st.sampled_from(POLICIES),
)
def test_whatever_a_publisher_sends_is_an_update_or_an_error(
    sent: list[tuple[int, bytes]], policy: SlowPolicy
) -> None:
    async def main() -> None:
        async with open_hand_publisher(reconnect=None) as (hand, client):
            async with client.subscribe("topic", policy=policy) as topic:
                for flags, payload in sent:
                    if core_of(client).link is not None:
                        await hand.post(payload, flags)
                offset = topic.position.offset
                with trio.move_on_after(1):
                    while True:
                        try:
                            (update,) = await take(topic, 1)
                        except SerializationError:
                            continue
                        except (PushError, RemoteProtocolError):
                            return
                        if isinstance(update, Gap):
                            continue
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
