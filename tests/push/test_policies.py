"""What happens to who does not keep up, by its policy, and that it happens to nobody else."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from heartline import (
    Connection,
    Gap,
    History,
    Position,
    Receipt,
    Server,
    SlowConsumer,
    Subscription,
)
from heartline.push import SlowPolicy
from heartline.push._publisher import BLOCK_PATIENCE
from heartline.push._served import WINDOW_COUNT
from heartline.push._types import POLICIES
from tests.engine import core_of
from tests.push.helpers import (
    HandSubscriber,
    cut,
    is_stuck,
    open_client,
    open_pair,
    open_topics,
    publish,
    settle,
    take,
    take_gap,
    take_values,
)

SHORT = History(count=10)
BLOCK: Final = "block"


@pytest.mark.parametrize("policy", POLICIES)
async def test_who_keeps_up_gets_everything(policy: SlowPolicy, autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=History(count=1)) as (server, client):
        async with client.subscribe("topic", policy=policy) as topic:
            for number in range(3 * WINDOW_COUNT):
                await server.publish("topic", number)
                assert await take_values(topic, 1) == [number]
        assert server.statistics().topics["topic"].skipped == 0


@pytest.mark.parametrize("policy", POLICIES)
async def test_who_is_behind_catches_up_from_the_history(
    policy: SlowPolicy, autojump_clock: MockClock
) -> None:
    async with open_pair(blocking=True) as (server, client):
        async with client.subscribe("topic", policy=policy) as topic:
            await publish(server, range(1000))
            if policy == "keep newest":
                values = [*await take_values(topic, 1), *await take_values(topic, 1)]
                assert values == [WINDOW_COUNT - 1, 999]
            else:
                assert await take_values(topic, 1000) == list(range(1000))


# Dropping the oldest.


async def test_dropping_the_oldest_is_told_and_then_goes_on(autojump_clock: MockClock) -> None:
    async with (
        open_pair(blocking=True, history=SHORT) as (server, client),
        client.subscribe("topic") as topic,
    ):
        offset = skipped = 0
        for turn in range(3):
            await publish(server, range(1000))
            async for gap in topic:
                if isinstance(gap, Gap):
                    break
                assert gap.offset == offset + 1
                offset += 1
            assert offset == turn * 1001 + WINDOW_COUNT - (turn > 0), "the window was full"
            assert topic.position.offset == offset
            first, offset = offset + 1, (turn + 1) * 1001 - 1
            assert gap == Gap(topic="topic", epoch=topic.position.epoch, first=first, last=offset - 1)
            (newest,) = await take(topic, 1)
            assert (newest.offset, newest.value) == (offset, 999)
            skipped += offset - first
            assert server.statistics().topics["topic"].skipped == skipped
            await publish(server, ["next"])
            assert await take_values(topic, 1) == ["next"]
            offset += 1
        assert client.statistics().links == 1


async def test_the_newest_that_is_retained_no_longer(autojump_clock: MockClock) -> None:
    """With an age, not even the newest is there when the gap is told."""
    async with open_pair(blocking=True, history=History(age=10.0)) as (server, client):
        first = await server.publish("topic", 1)
        await publish(server, [2, 3])
        await trio.sleep(11)
        async with client.subscribe("topic", since=Position(first.epoch, 1)) as topic:
            gap = await take_gap(topic)
            assert (gap.gap.first, gap.newest) == (2, None)
            await publish(server, [4])
            assert await take_values(topic, 1) == [4]


# Keeping the newest.


async def test_keeping_the_newest_skips_on_both_sides(autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        async with client.subscribe("topic", policy="keep newest") as topic:
            # What has arrived is replaced at the subscriber, what has not is skipped at the publisher.
            await publish(server, range(100))
            await settle()
            assert await take_values(topic, 1) == [99]
            await publish(server, range(100, 2000))
            await settle()
            seen = await take_values(topic, 1)
            while seen[-1] != 1999:
                seen += await take_values(topic, 1)
            assert len(seen) <= 3
            skipped = server.statistics().topics["topic"].skipped
            assert 2000 - 3 * WINDOW_COUNT <= skipped <= 2000


@pytest.mark.parametrize("count", [1, 10, 5000])
async def test_the_newest_comes_however_far_behind_one_is(count: int, autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=History(count=count)) as (server, client):
        await publish(server, range(3000))
        async with client.subscribe("topic", since="oldest", policy="keep newest") as topic:
            assert await take_values(topic, 1) == [2999]
            await publish(server, range(3000, 3000 + 2 * WINDOW_COUNT))
            while await take_values(topic, 1) != [2999 + 2 * WINDOW_COUNT]:
                pass


async def test_a_large_state_is_sent_once_it_is_wanted(autojump_clock: MockClock) -> None:
    """A model that takes long to handle: those between are not even sent."""
    async with open_pair(blocking=True, history=History(count=1)) as (server, client):
        async with client.subscribe("topic", policy="keep newest") as topic:
            await settle()
            for number in range(20):
                await server.publish("topic", [number, bytes(2_000_000)])
            await settle()
            assert (await take_values(topic, 1))[0][0] == 0
            assert (await take_values(topic, 1))[0][0] == 19
            assert server.statistics().topics["topic"].skipped == 18


# Blocking.


async def fill(server: Server, topic: Subscription[Any]) -> int:
    """Publish until the window and the history are full; how many that are."""
    await settle()
    await publish(server, range(WINDOW_COUNT + SHORT.count))
    return WINDOW_COUNT + SHORT.count


async def test_a_publisher_waits_only_when_it_would_lose_something(autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        async with client.subscribe("topic", policy=BLOCK) as topic:
            count = await fill(server, topic)
            assert await is_stuck(lambda: server.publish("topic", "lost"))
            assert server.statistics().topics["topic"].last_offset == count, "it was not published"
            await publish(server, ["other"], "other")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, server, range(count, 1000))
                assert await take_values(topic, 1000) == list(range(1000))


async def test_a_publisher_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        async with client.subscribe("topic", policy=BLOCK) as topic:
            count = await fill(server, topic)
            await publish(server, ["in spite of it"])
            assert trio.current_time() == pytest.approx(BLOCK_PATIENCE)
            assert server.statistics().topics["topic"].last_offset == count + 1
            assert len(await take(topic, WINDOW_COUNT)) == WINDOW_COUNT
            assert (await take_gap(topic)).newest.value == "in spite of it"


@pytest.mark.parametrize("size", [100, 3000])
async def test_a_history_of_bytes_blocks_too(size: int, autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=History(size=5000)) as (server, client):
        async with client.subscribe("topic", policy=BLOCK) as topic:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, server, [bytes(size)] * 1000)
                await trio.sleep(10)
                assert server.statistics().topics["topic"].last_offset <= WINDOW_COUNT + 5000 // size
                assert await take_values(topic, 1000) == [bytes(size)] * 1000


async def test_at_the_timeout_the_publisher_goes_on(autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        async with client.subscribe("topic", policy=BLOCK) as topic:
            count = await fill(server, topic)
            receipt: Receipt = await server.publish("topic", "late", timeout=7.0)
            assert trio.current_time() == pytest.approx(7.0)
            assert receipt.offset == count + 1
            assert len(await take(topic, WINDOW_COUNT)) == WINDOW_COUNT
            gap = await take_gap(topic)
            assert (gap.gap.first, gap.newest.value) == (WINDOW_COUNT + 1, "late")


async def _leave(subscription: Subscription[Any], _client: Connection) -> None:
    await subscription.__aexit__(None, None, None)


async def _lose_the_link(_subscription: Subscription[Any], client: Connection) -> None:
    cut(client)


@pytest.mark.parametrize("release", [_leave, _lose_the_link])
async def test_who_goes_holds_nobody_up(release: Any, autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        topic = client.subscribe("topic", policy=BLOCK)
        await topic.__aenter__()
        count = await fill(server, topic)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, server, range(count, 1000))
            await settle()
            assert server.statistics().topics["topic"].last_offset == count
            await release(topic, client)
        assert trio.current_time() < 1.0
        # And what it holds up later is decided anew.
        await publish(server, range(1000))


async def test_several_publishers_that_are_held_up_keep_every_update(autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        async with client.subscribe("topic", policy=BLOCK) as topic, trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(publish, server, [(number, n) for n in range(100)])
            updates = await take(topic, 1000)
        assert [update.offset for update in updates] == list(range(1, 1001))
        for number in range(10):
            assert [u.value[1] for u in updates if u.value[0] == number] == list(range(100))


# Disconnecting.


async def test_who_is_too_slow_is_told_and_its_place_is_free(autojump_clock: MockClock) -> None:
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        async with client.subscribe("topic", policy="disconnect") as topic:
            await publish(server, range(1000))
            assert await take_values(topic, WINDOW_COUNT) == list(range(WINDOW_COUNT))
            for _ in range(2):
                with pytest.raises(SlowConsumer, match="'topic': the subscriber did not keep up"):
                    await take(topic, 1)
            assert server.subscribers("topic") == frozenset()
            assert topic.position.offset == WINDOW_COUNT
            async with client.subscribe("topic", policy="disconnect") as again:
                await publish(server, ["next"])
                assert await take_values(again, 1) == ["next"]
        assert client.statistics().links == 1


async def test_who_is_too_slow_harms_nobody(autojump_clock: MockClock) -> None:
    """Others on the same connection, and those who wait for it, go on."""
    async with open_topics(blocking=True, history=SHORT) as server, open_client(server) as client:
        async with trio.open_nursery() as nursery:
            others: list[int] = []

            async def follow(connection: Connection) -> None:
                async with connection.subscribe("topic") as topic:
                    while True:
                        others.extend(await take_values(topic, 1))

            async with open_client(server) as second:
                nursery.start_soon(follow, client)
                nursery.start_soon(follow, second)
                async with client.subscribe("topic", policy="disconnect") as topic:
                    await settle()
                    for number in range(1000):
                        receipt = await server.publish("topic", number, wait="confirmed", timeout=0.5)
                        assert second.id in receipt.confirmed
                        if number == WINDOW_COUNT + 20:
                            await take(topic, 100)
                    assert others == [number for number in range(1000) for _ in range(2)]
                    assert trio.current_time() < (WINDOW_COUNT + 30) * 0.5
                    await take(topic, WINDOW_COUNT - 100)
                    with pytest.raises(SlowConsumer):
                        await take(topic, 1)
                nursery.cancel_scope.cancel()


async def test_nothing_follows_the_end(autojump_clock: MockClock) -> None:
    """What a subscriber confirms after it was ended moves nothing, and kills nothing."""
    async with open_pair(blocking=True, history=SHORT) as (server, client):
        hand = HandSubscriber(client)
        number, _, position = await hand.subscribe("topic", policy="disconnect")
        await hand.confirm(number, position)
        await publish(server, range(1000))
        assert len(await hand.take()) == WINDOW_COUNT
        await hand.confirm(number, 16)
        (end,) = await hand.take()
        assert b"did not keep up" in end.payload
        for confirmed in (100, WINDOW_COUNT):
            await publish(server, range(100))
            await hand.confirm(number, confirmed)
        assert not await hand.take()
        assert core_of(client).link is not None
        # Its number is its own until it has said goodbye, too.
        assert (await hand.subscribe("topic", key=2))[0] != number
        await hand.leave(1)
        assert (await hand.subscribe("topic", key=3))[0] == number
