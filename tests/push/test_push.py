"""Publishing and subscribing, step by step."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import heartline
from heartline import Gap, History, HistoryGap, Position, SlowConsumer, Update
from heartline.push import SlowPolicy
from tests.engine import link_of
from tests.patience import PATIENCE

URLS = ("memory://", "tcp://127.0.0.1:0", "unix", "ws://127.0.0.1:0")


@asynccontextmanager
async def open_pair(
    url: str = "memory://", **settings: Any
) -> AsyncIterator[tuple[heartline.Server, heartline.Connection]]:
    async with heartline.open_server(url, **settings) as server:
        async with heartline.open_connection(
            server.urls[0],
            identity="reader",
            rng=random.Random(1),
            limits=heartline.Limits(resume_window=0),
        ) as connection:
            yield server, connection


async def take(subscription: heartline.Subscription[Any], count: int) -> list[Any]:
    values = []
    if count:
        async for update in subscription:
            values.append(update.value)
            if len(values) == count:
                break
    return values


@pytest.mark.parametrize("kind", URLS)
async def test_updates_come_in_order_over_a_loss(kind: str, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/socket" if kind == "unix" else kind
    async with open_pair(url) as (server, connection), connection.subscribe("news") as news:
        for number in range(5):
            await server.publish("news", number)
        assert await take(news, 5) == [0, 1, 2, 3, 4]
        await link_of(server.connections["reader"]).stream.aclose()
        for number in range(5, 60):
            await server.publish("news", number)
        with trio.fail_after(PATIENCE):
            assert await take(news, 55) == list(range(5, 60))
        assert connection.statistics().links == 2


@pytest.mark.parametrize(("since", "first"), [("oldest", 0), ("newest", 4), ("middle", 2), (None, 5)])
async def test_where_to_begin(since: Any, first: int, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection):
        receipts = [await server.publish("log", number) for number in range(5)]
        if since == "middle":
            since = Position(receipts[1].epoch, receipts[1].offset)
        async with connection.subscribe("log", since=since) as log:
            await server.publish("log", 5)
            assert await take(log, 6 - first) == list(range(first, 6))


async def test_only_subscribers_get_updates(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection):
        async with connection.subscribe("a") as a, connection.subscribe("b") as b:
            await server.publish("a", 1)
            await server.publish("b", 2)
            await server.publish("c", 3)
            assert (await take(a, 1), await take(b, 1)) == ([1], [2])
            assert server.subscribers("a") == {"reader"}
            assert server.subscribers("c") == frozenset()
            with trio.move_on_after(1) as scope:
                await take(a, 1)
            assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert server.subscribers("a") == frozenset()


async def test_a_receipt_names_who_confirmed_and_who_did_not(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection):
        async with (
            heartline.open_connection(server.urls[0], identity="sleeper") as sleeper,
            connection.subscribe("news") as news,
            sleeper.subscribe("news"),
            trio.open_nursery() as nursery,
        ):

            @nursery.start_soon
            async def read() -> None:
                await take(news, 3)

            receipt = await server.publish("news", "hear", wait="confirmed", timeout=5)
            assert receipt.confirmed == {"reader"}
            assert receipt.missing == {"sleeper"}
            assert trio.current_time() == pytest.approx(5, abs=0.01)
            receipt = await server.publish("news", "hear", wait="sent")
            assert receipt.confirmed == {"reader", "sleeper"}
            receipt = await server.publish("news", "hear")
            assert (receipt.confirmed, receipt.missing) == (frozenset(), frozenset())
            await wait_all_tasks_blocked()  # the reader has them all before the subscription is left


async def test_a_subscriber_that_comes_back_in_time_counts(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection), connection.subscribe("news") as news:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                await trio.sleep(1)
                await link_of(server.connections["reader"]).stream.aclose()
                async for update in news:
                    assert isinstance(update, Update)
                    if update.value == "last":
                        break

            receipt = await server.publish("news", "important", wait="confirmed", timeout=60)
            assert receipt.confirmed == {"reader"}
            await server.publish("news", "last")


async def test_a_gap_is_told_with_the_newest_state(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=3)) as (server, connection):
        async with connection.subscribe("state") as state:
            await server.publish("state", 0)
            assert await take(state, 1) == [0]
            await link_of(server.connections["reader"]).stream.aclose()
            for number in range(1, 10):
                await server.publish("state", number)
            gap = await anext(state)
            assert isinstance(gap, Gap)
            assert (gap.first, gap.last) == (2, 9)
            assert await take(state, 1) == [9]
            await server.publish("state", 10)
            assert await take(state, 1) == [10]


@pytest.mark.parametrize("policy", ["drop oldest", "keep newest", "disconnect"])
async def test_a_slow_subscriber_gets_what_its_policy_says(
    policy: SlowPolicy, autojump_clock: MockClock
) -> None:
    async with open_pair(history=History(count=10)) as (server, connection):
        async with connection.subscribe("state", policy=policy, on_gap="raise") as state:
            for number in range(1000):
                await server.publish("state", number)
            if policy == "keep newest":
                *_, last = [await take(state, 1)]
                while last != [999]:
                    last = await take(state, 1)
                return
            seen = 0
            with pytest.raises(HistoryGap if policy == "drop oldest" else SlowConsumer):
                async for update in state:
                    assert update.value == seen, "in order until the gap"
                    seen += 1
            assert 256 <= seen < 1000


async def test_a_publisher_waits_for_who_asked_for_it(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=5)) as (server, connection):
        server.declare_topic("log", policies=["block"])
        async with (
            connection.subscribe("log", policy="block") as log,
            trio.open_nursery() as nursery,
        ):

            @nursery.start_soon
            async def publish() -> None:
                for number in range(1000):
                    await server.publish("log", number)

            await trio.sleep(1)
            lag = server.statistics().topics["log"].last_offset
            assert lag < 300, "the window and the history are full"
            assert await take(log, 1000) == list(range(1000))


async def test_small_pushes_are_joined_and_a_single_one_leaves_at_once(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection), connection.subscribe("news") as news:
        stream = link_of(server.connections["reader"]).stream
        writes: list[int] = []
        send_all = stream.send_all

        async def counted(data: bytes | bytearray | memoryview) -> None:
            writes.append(len(data))
            await send_all(data)

        stream.send_all = counted  # type: ignore[method-assign]
        await server.publish("news", 0)
        await wait_all_tasks_blocked()
        assert len(writes) == 1
        async with trio.open_nursery() as nursery:
            for number in range(1, 101):
                nursery.start_soon(server.publish, "news", number)
        assert await take(news, 101) is not None
        assert len(writes) < 20


async def test_arrays_travel(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection), connection.subscribe("model") as model:
        sent = {"weights": [np.arange(6.0).reshape(2, 3), np.array(1, dtype=np.int8)]}
        await server.publish("model", sent)
        (received,) = await take(model, 1)
        for ours, theirs in zip(sent["weights"], received["weights"], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


async def test_what_cannot_be_sent_is_no_update(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection), connection.subscribe("news") as news:
        with pytest.raises(heartline.SerializationError):
            await server.publish("news", object())
        await server.publish("news", 1)
        assert await take(news, 1) == [1]


async def test_a_reader_learns_why_the_connection_ended(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, connection), connection.subscribe("news") as news:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.close_connection, "reader")
            with pytest.raises(heartline.ConnectionClosed):
                await take(news, 1)
