"""A publisher gives a link what it has room for, and nobody is given up for what was queued for him."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import CloseCode, Connection, History, Limits, Update
from heartline.push import Fold, TopicSettings
from heartline.push._served import Served
from heartline.push._wire import OFFSET
from heartline.session import GoAway
from heartline.wire import Frame, FrameType
from tests.engine import core_of, link_of

from ..connection.helpers import RawPeer
from ..rpc.helpers import call_frame
from .helpers import (
    CBOR,
    HandSubscriber,
    cut,
    next_update,
    open_client,
    open_topics,
    publish,
    run,
    settle,
    stop_reading,
)

KIB = 1024


async def follow(client: Connection, topic: str, last: int, seen: dict[str, list[int]]) -> None:
    """Note the offsets from the oldest on."""
    async with client.subscribe(topic, since="oldest") as updates:
        async for update in updates:
            assert isinstance(update, Update)
            seen.setdefault(topic, []).append(update.offset)
            if update.offset == last:
                return


@pytest.mark.parametrize("url", ["memory://", "tcp://127.0.0.1:0", "ws://127.0.0.1:0"])
@pytest.mark.parametrize("size", [10_000, 40_000, 100_000])
async def test_all_subscriptions_of_a_client_get_what_is_due(url: str, size: int) -> None:
    """Much more than a link has room for, and than a peer that does not read may leave."""
    count = 2_000_000 // size
    async with open_topics(url) as server:
        names = [f"topic {n}" for n in range(12)]
        for name in names:
            await publish(server, [bytes(size)] * count, name)
        async with open_client(server) as client:
            seen: dict[str, list[int]] = {}
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(follow, client, name, count, seen)
            assert seen == {name: list(range(1, count + 1)) for name in names}
            assert client.statistics().links == 1


@asynccontextmanager
async def held_up(
    topics: int, *, limits: Limits, policy: str = "drop oldest", **settings: Any
) -> AsyncIterator[tuple[heartline.Server, Connection, HandSubscriber, list[str]]]:
    """A client with a subscription by hand to each topic, ready, that takes nothing from its transport."""
    async with open_topics(limits=limits, **settings) as server, open_client(server) as client:
        hand = HandSubscriber(client)
        names = [f"topic {n}" for n in range(topics)]
        for key, name in enumerate(names):
            number, _, position = await hand.subscribe(name, key=key, policy=policy)
            await hand.confirm(number, position)
        stop_reading(client)
        yield server, client, hand, names


@pytest.mark.parametrize("size", [100, 5_000, 50_000])
async def test_a_link_holds_what_it_has_room_for(size: int, autojump_clock: MockClock) -> None:
    limits = Limits(write_buffer=100 * KIB)
    async with held_up(40, limits=limits) as (server, client, _hand, names):
        served = server.connections[client.id]
        for _ in range(50):
            for name in names:
                await server.publish(name, bytes(size))
        await settle()
        assert served.statistics().backlog < 100 * KIB + 2 * size
        assert server.connections[client.id] is served


async def test_who_does_not_read_is_not_given_up_for_what_was_queued(autojump_clock: MockClock) -> None:
    """Nobody else notices either, and what it missed is what its policy says."""
    async with held_up(12, limits=Limits(), history=History(count=5)) as (server, client, hand, names):
        async with open_client(server) as other, other.subscribe(names[0]) as updates:
            for name in names:
                await publish(server, [bytes(40_000)] * 60, name)
            assert [(await next_update(updates)).offset for _ in range(3)]
        await trio.sleep(100)
        assert client.id in server.connections
        assert server.statistics().topics[names[0]].skipped == 0


async def test_subscriptions_of_a_link_take_turns(autojump_clock: MockClock) -> None:
    """The first one fills the link; from then on each gets an update before any gets another one."""
    topics, updates = 7, 60
    async with open_topics(limits=Limits(write_buffer=50 * KIB)) as server:
        peer = await RawPeer.join(server.urls[0])
        numbers = []
        for key in range(topics):
            await peer.send(call_frame(key, "$push.subscribe", f"topic {key}", None, "drop oldest", key))
            (answer,) = await peer.events()
            number, _, position = CBOR.decode(answer.payload[1:])
            await peer.send(Frame(FrameType.CONFIRM, id=number, payload=OFFSET.pack(position)))
            numbers.append(number)
        for key in range(topics):
            await publish(server, [bytes(4_000)] * updates, f"topic {key}")
        order: list[int] = []
        while len(order) < topics * updates:
            order += [frame.id for frame in await peer.events()]
            await settle()
        first = order.index(numbers[1])
        assert first < updates - 10
        rounds = [order[n : n + topics] for n in range(first, first + topics * (updates - first), topics)]
        assert all(sorted(one) == sorted(numbers) for one in rounds)


@given(
    sizes=st.lists(st.sampled_from([0, 10, 1_000, 40_000, 70_000, 200_000]), min_size=1, max_size=60),
    topics=st.integers(1, 6),
    write_buffer=st.sampled_from([1_000, 50_000, 300_000]),
    cuts=st.lists(st.floats(0, 2), max_size=3),
)
@settings(max_examples=40)
def test_everything_arrives_in_order_however_narrow_the_link(
    sizes: list[int], topics: int, write_buffer: int, cuts: list[float]
) -> None:
    """Over losses of the link too, while it is published and afterwards."""

    async def main() -> None:
        limits = Limits(write_buffer=write_buffer)
        names = [f"topic {n}" for n in range(topics)]
        async with (
            open_topics(limits=limits) as server,
            open_client(server, limits=limits, resume_window=60.0) as client,
        ):
            seen: dict[str, list[int]] = {}
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(follow, client, name, len(sizes), seen)

                @nursery.start_soon
                async def disturb() -> None:
                    for wait in cuts:
                        await trio.sleep(wait)
                        cut(client)
                        await trio.lowlevel.checkpoint()
                        await client.wait_open()

                await settle()
                for size in sizes:
                    for name in names:
                        await server.publish(name, bytes(size))
                    await trio.sleep(0.05)
            assert seen == {name: list(range(1, len(sizes) + 1)) for name in names}
            assert client.statistics().resumed == len(cuts)

    run(main)


async def test_a_link_that_is_down_does_not_end_its_session(autojump_clock: MockClock) -> None:
    """For two seconds, with much more due than is kept for a peer that does not read."""
    names = [f"topic {n}" for n in range(20)]
    async with (
        open_topics() as server,
        open_client(
            server, resume_window=60.0, reconnect=heartline.Backoff(initial=2.0, maximum=2.0)
        ) as client,
    ):
        seen: dict[str, list[int]] = {}
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(follow, client, name, 61, seen)
            await settle()
            await publish(server, [b""] * 1, names[0])
            for name in names[1:]:
                await publish(server, [b""], name)
            cut(client)
            await settle()
            for name in names:
                await publish(server, [bytes(50_000)] * 60, name)
            assert server.connections[client.id].statistics().backlog <= Limits().write_buffer + 100_000
        assert seen == {name: list(range(1, 62)) for name in names}
        assert client.statistics().links == 2
        assert client.statistics().resumed == 1


async def test_states_wait_for_room_too(autojump_clock: MockClock) -> None:
    """Those with which subscriptions begin, of which a peer may ask for many at once."""
    topics = {
        f"topic {n}": TopicSettings(fold=Fold(apply=lambda _state, value: value, initial=bytes))
        for n in range(300)
    }
    async with open_topics(topics=topics) as server, open_client(server) as client:
        for name in topics:
            await server.publish(name, bytes(60_000))
        hand = HandSubscriber(client)
        numbers = [(await hand.subscribe(name, "snapshot", key=key))[::2] for key, name in enumerate(topics)]
        served = server.connections[client.id]
        most = 0
        for number, position in numbers:
            hand.post(number, position.to_bytes(8))
        for _ in range(2000):
            await trio.lowlevel.checkpoint()
            most = max(most, served.statistics().backlog)
        await settle()
        assert most < Limits().write_buffer + 200_000
        states = [frame for frame in hand.frames if len(frame.payload) > 60_000]
        assert len(states) == len(topics)
        assert client.statistics().links == 1


async def test_sent_is_told_when_the_link_had_room(autojump_clock: MockClock) -> None:
    async with open_topics(limits=Limits(write_buffer=10 * KIB)) as server, open_client(server) as client:
        async with client.subscribe("topic") as updates, trio.open_nursery() as nursery:
            receipts = []

            async def tell() -> None:
                receipts.append(await server.publish("topic", bytes(9_000), wait="sent"))

            for _ in range(50):
                nursery.start_soon(tell)
            for _ in range(50):
                await anext(updates)
        assert {receipt.confirmed for receipt in receipts} == {frozenset({client.id})}


async def test_a_blocking_subscription_waits_for_room(autojump_clock: MockClock) -> None:
    """Nothing is lost for one that wants to be waited for, and the publisher goes on when the link does."""
    limits = Limits(write_buffer=10 * KIB)
    history = History(count=3)
    settings: Any = {"limits": limits, "history": history}
    async with open_topics(blocking=True, **settings) as server, open_client(server) as client:
        blocking = client.subscribe("topic", policy="block")
        async with blocking as updates, trio.open_nursery() as nursery:
            nursery.start_soon(publish, server, [bytes(9_000)] * 60)
            assert [(await next_update(updates)).offset for _ in range(60)] == list(range(1, 61))
        assert trio.current_time() == 0


async def test_who_waits_is_not_looked_at_by_every_write(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of catching up grows with the updates, not with updates times subscriptions."""
    steps = 0
    advance = Served.advance

    def count(served: Served, *most: float) -> bool:
        nonlocal steps
        steps += 1
        return advance(served, *most)

    monkeypatch.setattr(Served, "advance", count)
    topics, updates = 200, 4
    async with open_topics(limits=Limits(write_buffer=20 * KIB)) as server:
        for n in range(topics):
            await publish(server, [bytes(9_000)] * updates, f"topic {n}")
        async with open_client(server) as client:
            hand = HandSubscriber(client)
            for n in range(topics):
                number, _, position = await hand.subscribe(f"topic {n}", "oldest", key=n)
                hand.post(number, position.to_bytes(8))
            await settle()
            assert len(hand.frames) == topics * updates
        # One when it is published, one for each turn, one at the beginning and one at the end.
        assert steps <= topics * (2 * updates + 3)


# A peer that really does not read


async def test_who_never_reads_its_answers_is_told_and_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_topics(limits=Limits(calls=1)) as server:
        peer = await RawPeer.join(server.urls[0], identity="deaf")
        connection = server.connections["deaf"]
        frames = [call_frame(number, "No.such") for number in range(1000)]
        with trio.move_on_after(0.5):
            while core_of(connection).link is not None:
                await peer.send(*frames)
        (goodbye,) = [event for event in await peer.rest() if isinstance(event, GoAway)]
        assert goodbye.code == CloseCode.SLOW_CONSUMER
        assert "does not read" in goodbye.reason
        await settle()
        assert not server.connections
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "deaf" in record.getMessage()
    assert "does not read" in record.getMessage()


async def test_a_client_that_was_slow_may_come_back(autojump_clock: MockClock) -> None:
    assert not CloseCode.is_terminal(CloseCode.SLOW_CONSUMER)
    async with open_topics() as server, open_client(server) as client:
        connection = server.connections[client.id]
        link = link_of(connection)
        link.session.outbox.size += 100_000_000  # as if so much waited already
        link.put(FrameType.PUSH, 0, 1, bytes(10))
        await trio.sleep(5)
        assert client.statistics().links == 2
        assert client.id in server.connections
