"""One subscription: where it begins, what counts as handled, how it is left."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import History, InvalidArguments, Position, Update
from heartline.errors import ConfigurationError, LocalProtocolError
from heartline.push import SlowPolicy
from heartline.push._following import CONFIRM_AFTER, CONFIRM_COUNT
from heartline.push._types import POLICIES
from tests.engine import link_of
from tests.push.helpers import (
    HandSubscriber,
    is_stuck,
    open_client,
    open_pair,
    open_topics,
    publish,
    run,
    settle,
    take,
    take_gap,
    take_values,
)

# Where it begins.


async def test_the_epoch_and_the_offsets_of_updates(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        receipts = [await server.publish("topic", value) for value in "abc"]
        assert [receipt.offset for receipt in receipts] == [1, 2, 3]
        (epoch,) = {receipt.epoch for receipt in receipts}
        expected = [Update("topic", epoch, offset, value) for offset, value in enumerate("abc", 1)]
        assert await take(topic, 3) == expected
        assert [update.position for update in expected] == [Position(epoch, n) for n in (1, 2, 3)]


async def test_the_first_update_can_come_after_the_subscription(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        async with client.subscribe("a") as a, client.subscribe("b", since="oldest") as b:
            async with client.subscribe("c", since="newest") as c:
                for topic in "abc":
                    await publish(server, [topic], topic)
                assert [await take_values(each, 1) for each in (a, b, c)] == [["a"], ["b"], ["c"]]


async def test_the_newest_begins_with_the_state_and_goes_on(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        await publish(server, range(5))
        async with client.subscribe("topic", since="newest") as topic:
            await publish(server, range(5, 8))
            assert await take_values(topic, 4) == [4, 5, 6, 7]


async def test_the_oldest_is_the_oldest_that_is_retained(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=3)) as (server, client):
        await publish(server, range(10))
        async with client.subscribe("topic", since="oldest") as topic:
            assert await take_values(topic, 3) == [7, 8, 9]


@pytest.mark.parametrize("since", ["newest", "oldest"])
async def test_what_is_too_old_is_not_retained(since: Any, autojump_clock: MockClock) -> None:
    async with open_pair(history=History(age=60.0)) as (server, client):
        await publish(server, ["old"])
        await trio.sleep(61)
        async with client.subscribe("topic", since=since) as topic:
            await publish(server, ["new"])
            assert await take_values(topic, 1) == ["new"]


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 12), st.sampled_from(POLICIES))
def test_a_position_goes_on_where_it_stands(
    count: int, published: int, offset: int, policy: SlowPolicy
) -> None:
    async def main() -> None:
        async with open_pair(blocking=True, history=History(count=count)) as (server, client):
            first = await server.publish("topic", 1)
            await publish(server, range(2, published + 1))
            last = max(1, published)
            since = Position(first.epoch, offset)
            async with client.subscribe("topic", since=since, policy=policy) as topic:
                assert topic.position == since
                await settle()
                await server.publish("topic", last + 1)
                lost = offset < last - count or offset > last
                if not lost and policy != "keep newest":
                    following = range(offset + 1, last + 2)
                    assert await take_values(topic, len(following)) == list(following)
                elif policy == "keep newest":
                    values = await take_values(topic, 1)
                    while values[-1] != last + 1:
                        values += await take_values(topic, 1)
                    assert values == sorted(set(values))
                elif policy == "disconnect" and offset <= last:
                    with pytest.raises(heartline.SlowConsumer, match=f"update {offset + 1} is no longer"):
                        await take(topic, 1)
                else:
                    gap = await take_gap(topic)
                    assert (gap.gap.topic, gap.gap.first) == ("topic", offset + 1)
                    assert gap.newest.value in (last, last + 1)
                    assert (
                        await take_values(topic, last + 1 - gap.newest.value)
                        == [last + 1][: 1 - gap.newest.value + last]
                    )

    run(main)


@pytest.mark.parametrize("published", [0, 3])
async def test_a_position_of_another_life_is_a_gap(published: int, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        await publish(server, range(published))
        since = Position("another life", 2)
        async with client.subscribe("topic", since=since) as topic:
            assert topic.position == since, "until the gap was told and handled"
            gap = await take_gap(topic)
            assert gap.gap.first == 3
            assert (gap.newest and gap.newest.value) == (published - 1 if published else None)
            assert topic.position == since
            await publish(server, ["next"])
            assert await take_values(topic, 1) == ["next"]
            assert topic.position.offset == published


async def test_a_position_of_another_life_is_the_newest_for_who_keeps_that(
    autojump_clock: MockClock,
) -> None:
    async with open_pair() as (server, client):
        await publish(server, range(5))
        since = Position("another life", 99)
        async with client.subscribe("topic", since=since, policy="keep newest") as topic:
            assert await take_values(topic, 1) == [4]


@pytest.mark.parametrize(
    "since",
    ["first", 5, 0, True, ("epoch", 1), ["epoch", 1], Position("a", "b"), Position(1, 1)],  # type: ignore[arg-type]
)
async def test_a_wrong_beginning_is_refused(since: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        with pytest.raises(ConfigurationError, match="since must "):
            client.subscribe("topic", since=since)


@pytest.mark.parametrize("topic", [5, "", None, "x" * 257, "\ud800"])
async def test_what_cannot_name_a_topic_is_refused(topic: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        with pytest.raises(
            ConfigurationError, match="a topic's name is Unicode text of 1 to 256 characters, not"
        ):
            client.subscribe(topic)


@pytest.mark.parametrize("target", ["Reading", 3, [int]])
async def test_what_is_no_type_is_refused(target: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        with pytest.raises(ConfigurationError, match=r"^type=.* cannot be checked: "):
            client.subscribe("topic", type=target)


async def test_a_wrong_policy_is_refused(autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        with pytest.raises(ConfigurationError, match=r"policy must be one of 'drop oldest', .*, not 'wait'"):
            client.subscribe("topic", policy="wait")  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match=r"on_gap must be one of 'yield', 'raise', not None"):
            client.subscribe("topic", on_gap=None)  # type: ignore[call-overload]


# What counts as handled.


async def test_an_update_is_handled_when_the_next_one_is_asked_for(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        start = topic.position
        assert start.offset == 0
        await publish(server, "abc")
        for offset in range(3):
            (update,) = await take(topic, 1)
            assert topic.position == Position(update.epoch, offset)


class Failed(Exception):
    """A handler did not manage."""


async def test_what_was_not_handled_comes_again(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        subscription = client.subscribe("topic")
        with pytest.raises(Failed):
            async with subscription:
                await publish(server, "abcd")
                await take(subscription, 3)
                raise Failed
        async with client.subscribe("topic", since=subscription.position) as again:
            assert await take_values(again, 2) == ["c", "d"]


async def test_a_gap_that_was_not_handled_comes_again(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=1)) as (server, client):
        first = await server.publish("topic", 1)
        await publish(server, (2, 3))
        subscription = client.subscribe("topic", since=Position(first.epoch, 1), on_gap="raise")
        with pytest.raises(heartline.HistoryGap):
            async with subscription:
                await take(subscription, 1)
        assert subscription.position == Position(first.epoch, 1)
        async with client.subscribe("topic", since=subscription.position) as again:
            assert (await take_gap(again)).gap.first == 2


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_what_leaving_confirms(how: str, autojump_clock: MockClock) -> None:
    """Left without an exception, the last update was handled; with one, it was not."""
    async with open_pair() as (server, client):
        subscription = client.subscribe("topic")

        async def read() -> None:
            with trio.move_on_after(5):
                async with subscription:
                    async for update in subscription:
                        assert isinstance(update, Update)
                        if update.value == "b":
                            if how == "break":
                                break
                            if how == "cancel":
                                await trio.sleep_forever()
                            raise Failed

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ignore_failed, read)
            await settle()
            await publish(server, "a")
            receipt = await server.publish("topic", "b", wait="confirmed")
        assert bool(receipt.confirmed) == (how == "break")
        assert subscription.position == Position(receipt.epoch, 2 if how == "break" else 1)


async def _ignore_failed(function: Any) -> None:
    try:
        await function()
    except Failed:
        pass


async def test_the_last_handled_update_is_confirmed_at_once(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_forever, topic, 0.0)
            for value in range(3):
                await server.publish("topic", value, wait="confirmed")
            assert trio.current_time() < 0.01
            nursery.cancel_scope.cancel()


async def _read_forever(subscription: heartline.Subscription[Any], delay: float) -> None:
    async for _ in subscription:
        await trio.sleep(delay)


async def test_confirmations_of_a_busy_reader_are_joined(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        await settle()
        before = client.statistics().frames_sent
        await publish(server, range(200))
        await settle()
        await take(topic, 200)
        await settle()
        confirmed = client.statistics().frames_sent - before
        assert 1 <= confirmed <= 200 // CONFIRM_COUNT + 1
        (served,) = server.statistics().topics.values()
        assert served.slowest_lag <= CONFIRM_COUNT


async def test_a_slow_reader_confirms_each_update_when_it_is_handled(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        async with trio.open_nursery() as nursery:
            times = []

            async def published(value: int) -> None:
                await server.publish("topic", value, wait="confirmed")
                times.append(trio.current_time())

            for value in range(5):
                nursery.start_soon(published, value)
            await settle()
            assert not times
            delay = 2 * CONFIRM_AFTER
            with trio.move_on_after(5.5 * delay):
                await _read_forever(topic, delay)
            assert times == pytest.approx([delay * n for n in range(1, 6)])


# How it is left.


async def test_leaving_and_subscribing_again(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        for turn in range(5):
            async with client.subscribe("topic") as topic:
                assert server.subscribers("topic") == {client.id}
                await publish(server, [turn, "unread"])
                assert await take_values(topic, 1) == [turn]
            await settle()
            assert server.subscribers("topic") == frozenset()
            await publish(server, ["missed"])


async def test_leaving_with_a_long_update_under_way(autojump_clock: MockClock) -> None:
    """What was on its way to the subscription that was left is nothing to the next one."""
    long = bytes(500_000)
    async with open_pair() as (server, client):
        link = link_of(server.connections[client.id])
        for _ in range(3):
            async with client.subscribe("topic") as topic:
                await publish(server, ["small", long, "behind"])
                assert await take_values(topic, 1) == ["small"]
                assert link.backlog > 100_000
            async with client.subscribe("topic") as again:
                await publish(server, ["next"])
                assert await take_values(again, 1) == ["next"]
                assert link.backlog == 0
        assert client.statistics().links == 1


async def test_a_subscription_is_entered_once_and_before_it_is_read(autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        subscription = client.subscribe("topic")
        with pytest.raises(LocalProtocolError, match="enter the subscription first"):
            await subscription.__anext__()
        with pytest.raises(LocalProtocolError, match="no position before"):
            _ = subscription.position
        async with subscription:
            pass
        with pytest.raises(LocalProtocolError, match="entered once"):
            await subscription.__aenter__()
        with pytest.raises(LocalProtocolError, match="'topic' was left"):
            await subscription.__anext__()


async def test_who_reads_a_subscription_that_is_left_learns_it(autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        async with trio.open_nursery() as nursery:
            async with client.subscribe("topic") as topic:

                async def read() -> None:
                    with pytest.raises(LocalProtocolError, match="'topic' was left"):
                        await topic.__anext__()

                nursery.start_soon(read)
                await settle()


async def test_the_error_of_the_body_comes_out(autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        with trio.CancelScope() as scope:
            with pytest.raises(Failed):
                async with client.subscribe("topic"):
                    scope.cancel()
                    raise Failed
        assert not scope.cancelled_caught


async def test_giving_up_while_subscribing_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """Nobody waits for a subscriber that never came, and its place is free."""
    async with open_pair(blocking=True) as (server, client):
        for turn in range(30):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def stop_in_a_moment(count: int, scope: trio.CancelScope) -> None:
                        for _ in range(count):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(stop_in_a_moment, turn, scope)
                    async with client.subscribe("topic", policy="block"):
                        await trio.sleep_forever()
            await settle()
            assert server.subscribers("topic") == frozenset()
        assert not await is_stuck(lambda: server.publish("topic", 1, wait="confirmed"))


# Whom it asks.


@pytest.mark.parametrize("since", [5, -1, "later", ["epoch"], ["epoch", -1], [1, 1], {"epoch": 1}, 1.5])
async def test_a_beginning_that_no_client_would_ask_for(since: Any, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        hand = HandSubscriber(client)
        with pytest.raises(InvalidArguments, match="since must be null"):
            await hand.subscribe("topic", since)
        assert server.subscribers("topic") == frozenset()


async def test_one_key_is_one_subscription(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        hand = HandSubscriber(client)
        await hand.subscribe("topic", key=5)
        with pytest.raises(InvalidArguments, match="the key 5 is that of another"):
            await hand.subscribe("other", key=5)
        await hand.leave(5)
        await hand.subscribe("other", key=5)


async def test_many_subscriptions_of_many_clients(autojump_clock: MockClock) -> None:
    """Two clients, several subscriptions to one topic on one connection, and many topics."""
    topics = [f"topic {n}" for n in range(10)]
    async with open_topics() as server, open_client(server) as one, open_client(server) as two:
        async with trio.open_nursery() as nursery:
            done = 0

            async def follow(client: heartline.Connection, topic: str) -> None:
                nonlocal done
                async with client.subscribe(topic, since="oldest") as subscription:
                    updates = await take(subscription, 50)
                    assert [update.offset for update in updates] == list(range(1, 51))
                    assert all(update.value == [topic, update.offset] for update in updates)
                    done += 1

            for client in (one, one, one, two):
                for topic in topics:
                    nursery.start_soon(follow, client, topic)
            for number in range(1, 51):
                for topic in topics:
                    await server.publish(topic, [topic, number])
        assert done == 40
        assert one.statistics().links == two.statistics().links == 1
