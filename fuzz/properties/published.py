"""What a publisher takes can be read: by a subscriber, in a state, and by a server that goes on with it."""

from __future__ import annotations

import logging
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from fuzz.properties.compare import normal, same
from fuzz.strategies import odd_values
from tests.push.stores import Disk, FakeStore

serializers = st.sampled_from(["cbor", "json", "msgpack"])


@given(serializers, odd_values)
def what_is_published_can_be_read(serializer: str, value: Any) -> None:
    fold = heartline.Fold(apply=lambda _, update: {"last": update})
    disk = Disk()

    async def main() -> None:
        async with _topic(serializer, disk, fold) as server:
            try:
                await server.publish("topic", value)
            except heartline.SerializationError:
                return
        expected = normal(serializer, value)
        async with _topic(serializer, disk, fold) as server, _client(serializer, server) as client:
            assert same(_plain(server.topic_state("topic")["last"]), _plain(expected))
            for since, arrived in (("oldest", expected), ("snapshot", {"last": expected})):
                async with client.subscribe("topic", since=since) as topic:
                    assert same(_plain((await topic.__anext__()).value), _plain(arrived))

    trio.run(main, clock=MockClock(autojump_threshold=0))


@given(serializers, odd_values)
def a_state_that_is_kept_can_be_read(serializer: str, value: Any) -> None:
    fold = heartline.Fold(apply=lambda state, _: [value, *state[1:], 1], initial=list)
    disk = Disk()

    async def main() -> None:
        lost = False
        async with _topic(serializer, disk, fold) as server:
            for number in range(4):  # the history forgets all but the last, so the store has a state
                await server.publish("topic", number)
            try:
                server.topic_state("topic")
            except heartline.PushError:
                lost = True
        if lost:
            assert disk.topics["topic"].state is None
            return
        async with _topic(serializer, disk, fold) as server, _client(serializer, server) as client:
            async with client.subscribe("topic", since="snapshot") as topic:
                update = await topic.__anext__()
                assert isinstance(update, heartline.Update)
                assert same(_plain(update.value[0]), _plain(normal(serializer, value)))

    _quiet(main)


def _quiet(main: Any) -> None:
    """A lost state is logged each time."""
    logger = logging.getLogger("heartline.push")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        logger.setLevel(before)


def _topic(serializer: str, disk: Disk, fold: heartline.Fold) -> Any:
    settings = heartline.TopicSettings(store=FakeStore(disk), fold=fold, history=heartline.History(count=1))
    return heartline.open_server("memory://", serializer=serializer, topics={"topic": settings})


def _client(serializer: str, server: heartline.Server) -> Any:
    return heartline.open_connection(server.urls[0], serializer=serializer)


def _plain(value: Any) -> Any:
    """Views as bytes: which of the two a view is after another round is not promised."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value
