"""What an update carries, and what happens to one that cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from fuzz.properties import published as properties
from fuzz.properties.compare import same
from fuzz.runner import Property, properties_of
from fuzz.strategies import (
    cbor_values_with_segments,
    json_values_with_segments,
    msgpack_values_with_segments,
)
from heartline import Gap, SerializationError
from heartline.push._log import SHARED_SIZE
from heartline.push._wire import PUSH_HEAD
from heartline.session.outbox import FRAGMENT_SIZE
from heartline.wire import CborSerializer, Flag, get_serializer
from tests.engine import core_of
from tests.few_examples import few_examples
from tests.push.helpers import (
    encode_update,
    open_hand_publisher,
    open_pair,
    publish,
    run,
    settle,
    take,
    take_values,
)


@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    few_examples(prop)()


VALUES = {
    "cbor": cbor_values_with_segments,
    "json": json_values_with_segments,
    "msgpack": msgpack_values_with_segments,
}


@given(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(VALUES[name], max_size=4))
    )
)
def test_updates_are_values_of_the_serializer(drawn: tuple[str, list[Any]]) -> None:
    name, sent = drawn
    serializer = get_serializer(name)

    async def main() -> None:
        async with open_pair(serializer=name) as (server, client):
            async with client.subscribe("topic") as live:
                await publish(server, sent)
                got = await take_values(live, len(sent))
            async with client.subscribe("topic", since="oldest") as late:
                again = await take_values(late, len(sent))
        for value, first, second in zip(sent, got, again, strict=True):
            segments: list[Any] = []
            arrived = serializer.decode(serializer.encode(value, segments), segments)
            assert same(first, second)
            assert _like(first, arrived)

    run(main)


def _like(a: Any, b: Any) -> bool:
    """The same, where a view of bytes may be any kind of bytes."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_like, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_like(a[key], b[key]) for key in a)
    if isinstance(a, (memoryview, bytes)):
        return bytes(a) == bytes(b)
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == np.ascontiguousarray(b).tobytes()
    return same(a, b)


@pytest.mark.parametrize("size", [10, SHARED_SIZE, FRAGMENT_SIZE - 200, FRAGMENT_SIZE, 300_000])
async def test_arrays_of_every_length(size: int, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        sent = np.arange(size, dtype=np.uint8)
        await server.publish("topic", {"model": [sent, sent[:5]], "round": 3})
        sent[:] = 0  # it is the publisher's own again
        ((update),) = await take(topic, 1)
        first, second = update.value["model"]
        np.testing.assert_array_equal(first, np.arange(size, dtype=np.uint8))
        np.testing.assert_array_equal(second, np.arange(5, dtype=np.uint8))
        assert (update.value["round"], update.offset) == (3, 1)
        first[:] = 1  # and the subscriber's


async def test_each_subscriber_has_arrays_of_its_own(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        async with client.subscribe("topic") as one, client.subscribe("topic") as two:
            await server.publish("topic", np.zeros(5))
            ((mine,), (yours,)) = await take_values(one, 1), await take_values(two, 1)
            mine[:] = 1
            assert not yours.any()


@pytest.mark.parametrize("value", [object(), {"deep": [1, {2, object()}]}, 2**80j, np.array([object()])])
async def test_what_cannot_be_sent_takes_no_offset(value: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        await publish(server, ["before"])
        with pytest.raises(SerializationError):
            await server.publish("topic", value)
        await publish(server, ["behind"])
        updates = await take(topic, 2)
        assert [(update.offset, update.value) for update in updates] == [(1, "before"), (2, "behind")]


UNREADABLE: dict[str, tuple[int, bytes]] = {
    "no CBOR": (0, PUSH_HEAD.pack(2, 1) + b"\xff\xff"),
    "no value": (0, PUSH_HEAD.pack(2, 1)),
    "too much": (0, PUSH_HEAD.pack(2, 1) + b"\x01\x01"),
    "a serializer that is not known": (0, PUSH_HEAD.pack(2, 99) + b"\x01"),
    "an envelope that lacks its segments": (
        Flag.RAW,
        encode_update(CborSerializer(), 2, np.zeros(100))[0][:-8],
    ),
    "an envelope without content": (Flag.RAW, PUSH_HEAD.pack(2, 1) + b"\0\0\0\2\x81\0"),
}


@pytest.mark.parametrize("how", UNREADABLE)
async def test_an_update_that_cannot_be_read_is_the_only_one(how: str, autojump_clock: MockClock) -> None:
    flags, payload = UNREADABLE[how]
    async with open_hand_publisher() as (hand, client), client.subscribe("topic") as topic:
        await hand.push(1, "before")
        await hand.post(payload, flags)
        await hand.push(3, "behind")
        assert await take_values(topic, 1) == ["before"]
        with pytest.raises(SerializationError):
            await take(topic, 1)
        assert await take_values(topic, 1) == ["behind"]
        assert topic.position.offset == 2, "that it cannot be read has been seen"
        await settle()
        assert core_of(client).link is not None


@pytest.mark.parametrize("how", UNREADABLE)
async def test_a_gap_whose_newest_cannot_be_read_is_told(how: str, autojump_clock: MockClock) -> None:
    flags, payload = UNREADABLE[how]
    async with open_hand_publisher() as (hand, client), client.subscribe("topic") as topic:
        await hand.notice(1, "gap", 1, True)
        await hand.post(payload, flags)
        await hand.push(3, "behind")
        assert await anext(topic) == Gap(topic="topic", epoch="epoch", first=1, last=1)
        with pytest.raises(SerializationError):
            await take(topic, 1)
        assert await take_values(topic, 1) == ["behind"]


async def test_who_keeps_the_newest_reads_only_that(autojump_clock: MockClock) -> None:
    """What was replaced before it was asked for need not even be readable."""
    async with open_hand_publisher() as (hand, client):
        async with client.subscribe("topic", policy="keep newest") as topic:
            await hand.post(PUSH_HEAD.pack(2, 99))
            await hand.push(3, "newest")
            assert await take_values(topic, 1) == ["newest"]
