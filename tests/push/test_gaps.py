"""What a subscription yields: updates of a type, and gaps where some were lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from trio.testing import MockClock

import heartline
from heartline import Fold, Gap, History, HistoryGap, Position, SerializationError, TopicSettings
from tests.push.helpers import next_update, open_client, open_pair, open_topics, publish, settle, take


async def test_an_iteration_simply_goes_on(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=2)) as (server, client):
        first = await server.publish("topic", 1)
        await publish(server, range(2, 8))
        seen: list[Any] = []
        async with client.subscribe("topic", since=Position(first.epoch, 1)) as topic:
            async for item in topic:
                seen.append(item if isinstance(item, Gap) else item.value)
                if seen[-1] == 9:
                    break
                if seen[-1] == 7:
                    await publish(server, [8, 9])
        gap = Gap(topic="topic", epoch=first.epoch, first=2, last=6)
        assert seen == [gap, 7, 8, 9]
        assert gap.position == Position(first.epoch, 6)


async def test_a_gap_is_raised_where_that_was_asked_for(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=2)) as (server, client):
        first = await server.publish("topic", 1)
        await publish(server, range(2, 8))
        since = Position(first.epoch, 1)
        async with client.subscribe("topic", since=since, on_gap="raise") as topic:
            with pytest.raises(HistoryGap, match="updates 2 to 6 are lost") as caught:
                await anext(topic)
            assert (caught.value.first, caught.value.last, caught.value.anew) == (2, 6, False)
            assert topic.position == since, "the newest update stands for what was lost"
            assert (await anext(topic)).value == 7


async def test_a_receipt_waits_for_the_newest_behind_a_gap(autojump_clock: MockClock) -> None:
    """That a gap was told does not mean that what stands for it was handled."""
    async with open_pair(history=History(count=1)) as (server, client):
        first = await server.publish("topic", 1)
        await publish(server, [2, 3])
        async with client.subscribe("topic", since=Position(first.epoch, 1)) as topic:
            assert isinstance(await anext(topic), Gap)
            assert (await next_update(topic)).value == 3
            receipt = await server.publish("topic", 4, wait="confirmed", timeout=1)
            assert receipt.missing == {client.id}


@dataclass
class Event:
    """What the publisher of these tests sends."""

    name: str
    at: float = 0.0


async def test_values_are_converted_as_those_of_calls_are(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic", type=Event) as topic:
        await server.publish("topic", Event("begin", 1.5))
        await server.publish("topic", {"name": 5})
        await server.publish("topic", {"name": "end"})
        assert (await next_update(topic)).value == Event("begin", 1.5)
        with pytest.raises(SerializationError, match=r"^update 2 of topic .topic.: .*str"):
            await anext(topic)
        assert topic.position.offset == 1
        assert (await next_update(topic)).value == Event("end")
        assert topic.position.offset == 2, "it has been seen that the one between does not fit"


async def test_a_gap_is_no_value_of_the_type(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=1)) as (server, client):
        first = await server.publish("topic", Event("first"))
        await publish(server, [Event("lost"), Event("newest")])
        since = Position(first.epoch, 1)
        async with client.subscribe("topic", since=since, type=Event) as topic:
            gap, newest = await take(topic, 2)
            assert isinstance(gap, Gap)
            assert newest.value == Event("newest")


async def test_a_state_is_of_another_type_than_its_updates(autojump_clock: MockClock) -> None:
    def count(state: dict[str, int], event: dict[str, Any]) -> dict[str, int]:
        return {**state, event["name"]: state.get(event["name"], 0) + 1}

    topics = {"topic": TopicSettings(fold=Fold(apply=count))}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        await server.publish("topic", Event("begin"))
        async with client.subscribe("topic", since="snapshot", type=Event) as topic:
            await settle()
            await server.publish("topic", Event("end"))
            state, update = await take(topic, 2)
            assert (state.snapshot, state.value) == (True, {"begin": 1})
            assert update.value == Event("end")


def test_a_subscription_is_made_by_a_connection_alone() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        heartline.Subscription()  # type: ignore[call-arg]
