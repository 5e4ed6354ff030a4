"""Which topics there are, and who may ask them for what."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import Fold, Gap, History, InvalidArguments, Limits, Position, PushError, Server, TopicSettings
from heartline.errors import ConfigurationError
from tests.push.helpers import (
    HandSubscriber,
    cut,
    open_client,
    open_pair,
    open_topics,
    publish,
    run,
    settle,
    take,
    take_values,
)
from tests.push.stores import Disk, FakeStore

# What is held


async def test_names_that_nobody_published_hold_no_place(autojump_clock: MockClock) -> None:
    """Whatever peers make up: everybody may go on subscribing, and the publisher publishing."""
    limits = Limits(topics=3, subscriptions=100)
    async with open_topics(limits=limits) as server, open_client(server) as honest:
        for _ in range(3):
            async with open_client(server) as client:
                hand = HandSubscriber(client)
                for key in range(100):
                    await hand.subscribe(f"{client.id} {key}", key=key)
                async with honest.subscribe("alerts") as alerts:
                    await server.publish("alerts", "one")
                    assert await take_values(alerts, 1) == ["one"]
                assert len(server.statistics().topics) == 101
            await settle()
            assert set(server.statistics().topics) == {"alerts"}


async def test_a_peer_has_so_many_subscriptions(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(subscriptions=5)) as (_, client):
        hand = HandSubscriber(client)
        for key in range(5):
            await hand.subscribe("topic", key=key)
        with pytest.raises(InvalidArguments, match=r"5 subscriptions at most .Limits\.subscriptions"):
            await hand.subscribe("topic", key=5)
        await hand.leave(2)
        await hand.subscribe("topic", key=5)


async def test_what_is_refused_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        hand = HandSubscriber(client)
        for settings in ({"since": "snapshot"}, {"since": 5}, {"policy": "block"}, {"policy": "later"}):
            with pytest.raises(InvalidArguments):
                await hand.subscribe("topic", **settings)
        wrong: list[tuple[Any, dict[str, Any]]] = [(object(), {}), (1, {"wait": "stored"}), (1, {"key": ""})]
        for value, settings in wrong:
            with pytest.raises((ConfigurationError, PushError, Exception)):
                await server.publish("topic", value, **settings)
        assert not server.statistics().topics


async def test_a_publisher_has_so_many_topics(autojump_clock: MockClock) -> None:
    async with open_topics(limits=Limits(topics=4)) as server, open_client(server) as client:
        server.declare_topic("declared")
        server.declare_topic("declared")
        for name in ("one", "two", "three"):
            await publish(server, [1, 2], name)
        for use in (lambda: server.publish("more", 1), lambda: declare(server, "more")):
            with pytest.raises(ConfigurationError, match=r"'more' would be one more than 4 .Limits\.topics"):
                await use()
        async with client.subscribe("more"):
            with pytest.raises(ConfigurationError, match="one more than 4"):
                await server.publish("more", 1)
            await server.delete_topic("one")
            await server.publish("more", 1)
        assert set(server.statistics().topics) == {"declared", "two", "three", "more"}


async def test_with_declared_only_there_are_no_other_topics(autojump_clock: MockClock) -> None:
    async with (
        open_topics(declared_only=True, topics={"first": TopicSettings()}) as server,
        open_client(server, declared_only=True, topics={"mine": TopicSettings()}) as client,
    ):
        server.declare_topic("second")
        there = server.connections[client.id]
        ways: list[tuple[str, Any, Any]] = [
            ("first", server, client),
            ("second", server, client),
            ("mine", client, there),
        ]
        for name, publisher, subscriber in ways:
            async with subscriber.subscribe(name) as updates:
                await publisher.publish(name, 1)
                assert await take_values(updates, 1) == [1]
        for _, publisher, subscriber in ways[1:]:
            with pytest.raises(ConfigurationError, match=r"'frist' is not declared, .*declared_only"):
                await publisher.publish("frist", 1)
            with pytest.raises(InvalidArguments, match=r"'frist' is not declared, .*declared_only"):
                async with subscriber.subscribe("frist"):
                    pass
        async with client.subscribe("second") as ending:
            await server.delete_topic("second")
            with pytest.raises(PushError, match="deleted"):
                await take(ending, 1)
        with pytest.raises(ConfigurationError, match="not declared"):
            await server.publish("second", 1)
        assert set(server.statistics().topics) == {"first"}, "what is refused leaves nothing"


async def declare(server: Server, name: str) -> None:
    """As a function to be awaited."""
    server.declare_topic(name)


async def test_a_topic_that_aged_away_is_forgotten(autojump_clock: MockClock) -> None:
    history = History(age=10.0)
    async with open_topics(history=history, limits=Limits(topics=3)) as server, open_client(server) as client:
        server.declare_topic("declared")
        async with client.subscribe("heard") as heard:
            for turn in range(5):
                first = await server.publish("heard", turn)
                await server.publish(f"turn {turn}", turn)
                await trio.sleep(11)
            assert await take_values(heard, 5) == list(range(5))
            assert (first.offset, first.epoch) == (5, heard.position.epoch), "who listens keeps it"
        await settle()
        await server.publish("last", 1)
        assert set(server.statistics().topics) == {"declared", "last"}
        again = await server.publish("heard", "again")
        assert again.offset == 1
        assert again.epoch != first.epoch
        async with client.subscribe("heard", since=heard.position) as late:
            gap, newest = await take(late, 2)
            assert (gap.first, gap.anew, newest.value) == (6, True, "again")


async def test_who_is_lost_before_the_first_update_misses_nothing(autojump_clock: MockClock) -> None:
    """The topic goes with its only subscription, and is the same when that is back."""
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        for _ in range(3):
            cut(client)
            await settle()
            assert not server.statistics().topics
            await client.wait_open()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                assert await take_values(topic, 1) == ["first"]

            await settle()
            await server.publish("topic", "first")


commands = st.one_of(
    st.tuples(st.sampled_from(["publish", "declare", "delete", "subscribe", "leave"]), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0, 4, 6, 11])),
)


@given(st.lists(commands, max_size=30), st.sampled_from([5.0, math.inf]))
def test_there_are_the_topics_that_somebody_needs(script: list[tuple[str, int]], age: float) -> None:
    """Those that are declared, subscribed to, or retain something; and what aged away is not for long."""

    async def main() -> None:
        declared: set[int] = set()
        held: dict[int, int] = {}
        published: dict[int, float] = {}
        lives: set[tuple[str, str]] = set()
        async with open_pair(history=History(age=age)) as (server, client):
            hand = HandSubscriber(client)
            for key, (what, which) in enumerate(script):
                name = str(which)
                if what == "publish":
                    receipt = await server.publish(name, key)
                    published[which] = trio.current_time()
                    fresh = (name, receipt.epoch) not in lives
                    assert (receipt.offset == 1) == fresh, "each life counts from 1"
                    lives.add((name, receipt.epoch))
                elif what == "declare":
                    server.declare_topic(name)
                    declared.add(which)
                elif what == "delete":
                    await server.delete_topic(name)
                    declared.discard(which)
                    published.pop(which, None)
                    held.pop(which, None)
                elif what == "subscribe" and which not in held:
                    held[which] = key
                    await hand.subscribe(name, key=key)
                elif what == "leave" and which in held:
                    await hand.leave(held.pop(which))
                elif what == "wait":
                    await trio.sleep(which)
                await settle()
                now = trio.current_time()
                needed = declared | set(held) | {n for n, at in published.items() if now - at <= age}
                there = {int(name) for name in server.statistics().topics}
                assert needed <= there <= needed | set(published)
            await trio.sleep(100)
            await server.publish("last", 1)
            there = {int(name) for name in server.statistics().topics if name != "last"}
            assert there == (needed_at_last(declared, held, published, age))

    def needed_at_last(
        declared: set[int], held: dict[int, int], published: dict[int, float], age: float
    ) -> set[int]:
        return declared | set(held) | (set(published) if age == math.inf else set())

    run(main)


# Deleting


async def test_a_deleted_topic_ends_for_all(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        first = await server.publish("topic", "old")
        await take(topic, 1)
        await server.delete_topic("topic")
        with pytest.raises(PushError, match="topic 'topic': the topic was deleted"):
            await anext(topic)
        assert not server.statistics().topics
        assert server.subscribers("topic") == frozenset()
        again = await server.publish("topic", "new")
        assert again.offset == 1
        assert again.epoch != first.epoch
        async with client.subscribe("topic", since=Position(first.epoch, 1)) as late:
            gap, newest = await take(late, 2)
            assert (gap.anew, newest.value) == (True, "new")
        await server.delete_topic("no such topic")


async def test_a_lost_subscriber_learns_that_the_topic_was_deleted(autojump_clock: MockClock) -> None:
    async with open_topics() as server, open_client(server, resume_window=60.0) as client:
        async with client.subscribe("topic") as topic:
            cut(client)
            await settle()
            await server.delete_topic("topic")
            with pytest.raises(PushError, match="was deleted"):
                await anext(topic)


async def test_who_waits_for_a_deleted_topic_is_told(autojump_clock: MockClock) -> None:
    async with open_topics(blocking=True) as server, open_client(server) as client:
        server.declare_topic("topic", history=History(count=1))
        hand = HandSubscriber(client)
        number, _, position = await hand.subscribe("topic", policy="block")
        await hand.confirm(number, position)
        outcomes: list[Any] = []

        async def confirmed() -> None:
            outcomes.append((await server.publish("topic", 1, wait="confirmed")).missing)

        async def blocked() -> None:
            try:
                for value in range(2, 1000):
                    await server.publish("topic", value)
            except PushError as error:
                outcomes.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(confirmed)
            await settle()
            nursery.start_soon(blocked)
            await trio.sleep(1)
            await server.delete_topic("topic")
        assert "topic 'topic' was deleted" in outcomes
        assert {client.id} in outcomes


async def test_a_topic_with_a_store_is_not_deleted(autojump_clock: MockClock) -> None:
    topics = {"topic": TopicSettings(store=FakeStore(Disk())), "sum": TopicSettings(fold=Fold(apply=max))}
    async with open_topics(topics=topics) as server:
        with pytest.raises(ConfigurationError, match="'topic' has a store"):
            await server.delete_topic("topic")
        await server.publish("topic", 1)
        await server.delete_topic("sum")
        with pytest.raises(ConfigurationError, match="no fold"):
            server.topic_state("sum")


# Policies


async def test_nobody_blocks_a_publisher_that_does_not_allow_it(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        server.declare_topic("state", history=History(count=1))
        with pytest.raises(InvalidArguments, match="'state' does not allow the policy 'block', but 'disc"):
            await client.subscribe("state", policy="block").__aenter__()
        for value in range(1000):
            await server.publish("state", value)
        assert trio.current_time() == 0


async def test_a_topic_says_which_policies_it_allows(autojump_clock: MockClock) -> None:
    topics = {"topic": TopicSettings(policies={"keep newest", "block"})}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        for policy in ("keep newest", "block"):
            async with client.subscribe("topic", policy=policy):
                pass
        with pytest.raises(InvalidArguments, match="does not allow the policy 'drop oldest'"):
            await client.subscribe("topic").__aenter__()
        server.declare_topic("topic", policies=["drop oldest"])
        async with client.subscribe("topic"):
            pass


@pytest.mark.parametrize("policies", ["block", [], ["later"], None, 5, [["block"]]])
def test_wrong_policies_are_refused(policies: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"TopicSettings\.policies"):
        TopicSettings(policies=policies)


async def test_a_gap_is_of_its_topic(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=1)) as (server, client):
        first = await server.publish("topic", 1)
        await publish(server, [2, 3])
        async with client.subscribe("topic", since=Position(first.epoch, 1)) as topic:
            assert await anext(topic) == Gap(topic="topic", epoch=first.epoch, first=2, last=2)
