"""Receipts: who has an update, who has not, and how long that is waited for."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heartline import Connection, History, Position, Server, Subscription, Update
from heartline.errors import ConfigurationError
from heartline.push import SlowPolicy
from heartline.push._served import WINDOW_COUNT
from tests.engine import link_of
from tests.push.helpers import (
    cut,
    is_stuck,
    open_client,
    open_pair,
    open_topics,
    publish,
    settle,
    stop_reading,
    take,
)

NOBODY: frozenset[str] = frozenset()


@asynccontextmanager
async def open_readers(**delays: float) -> AsyncIterator[tuple[Server, dict[str, Connection]]]:
    """A server, and clients that read ``topic``, each of which handles an update for some seconds."""
    async with open_topics() as server, trio.open_nursery() as nursery:
        clients: dict[str, Connection] = {}

        async def read(name: str, delay: float, task_status: trio.TaskStatus[None]) -> None:
            async with open_client(server, identity=name) as client, client.subscribe("topic") as topic:
                clients[name] = client
                task_status.started()
                async for _ in topic:
                    await trio.sleep(delay)

        for name, delay in delays.items():
            await nursery.start(read, name, delay)
        yield server, clients
        nursery.cancel_scope.cancel()


async def test_a_receipt_says_where_the_update_is(autojump_clock: MockClock) -> None:
    async with open_readers(one=0.0) as (server, _):
        for wait in (None, "sent", "confirmed"):
            first = await server.publish("topic", 1, wait=wait)
            second = await server.publish("topic", 2, wait=wait, timeout=1.0)
            assert (first.topic, second.topic) == ("topic", "topic")
            assert (first.epoch, first.offset + 1) == (second.epoch, second.offset)
            everyone = {"one"} if wait else NOBODY
            assert [(each.confirmed, each.missing) for each in (first, second)] == [(everyone, NOBODY)] * 2


@pytest.mark.parametrize("wait", ["sent", "confirmed"])
@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
async def test_without_subscribers_nobody_is_waited_for(
    wait: Any, timeout: float | None, autojump_clock: MockClock
) -> None:
    async with open_topics() as server:
        receipt = await server.publish("topic", 1, wait=wait, timeout=timeout)
        assert (receipt.confirmed, receipt.missing) == (NOBODY, NOBODY)
        assert trio.current_time() == 0


async def test_confirmed_is_when_the_slowest_has_handled_it(autojump_clock: MockClock) -> None:
    async with open_readers(fast=0.1, slow=3.0, slower=7.0) as (server, _):
        receipt = await server.publish("topic", 1, wait="confirmed")
        assert receipt.confirmed == {"fast", "slow", "slower"}
        assert trio.current_time() == pytest.approx(7.0)
        receipt = await server.publish("topic", 2, wait="confirmed", timeout=5.0)
        assert (receipt.confirmed, receipt.missing) == ({"fast", "slow"}, {"slower"})
        assert trio.current_time() == pytest.approx(12.0)


async def test_updates_are_confirmed_in_their_order(autojump_clock: MockClock) -> None:
    """Several publishers wait at the same time, each for its own update."""
    async with open_readers(one=1.0, two=2.0) as (server, _), trio.open_nursery() as nursery:
        times: list[tuple[int, float]] = []

        async def published() -> None:
            receipt = await server.publish("topic", None, wait="confirmed")
            times.append((receipt.offset, round(trio.current_time(), 3)))

        for _ in range(4):
            nursery.start_soon(published)
    assert times == [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0)]


async def test_a_handler_that_raises_confirms_nothing(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(ZeroDivisionError):
                async with client.subscribe("topic") as topic:
                    async for update in topic:
                        assert isinstance(update, Update)
                        1 / update.value

        nursery.start_soon(read)
        await settle()
        assert (await server.publish("topic", 1, wait="confirmed")).confirmed == {client.id}
        receipt = await server.publish("topic", 0, wait="confirmed")
        assert (receipt.confirmed, receipt.missing) == (NOBODY, {client.id})


# Who goes.


async def test_who_is_lost_and_comes_back_in_time_has_confirmed(autojump_clock: MockClock) -> None:
    async with open_readers(one=2.0, two=0.0) as (server, clients), trio.open_nursery() as nursery:
        nursery.start_soon(_cut_after, clients["one"], 1.0)
        receipt = await server.publish("topic", 1, wait="confirmed", timeout=60.0)
        assert (receipt.confirmed, receipt.missing) == ({"one", "two"}, NOBODY)
        assert 2.0 <= trio.current_time() < 3.0


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_who_is_lost_for_good(timeout: float | None, autojump_clock: MockClock) -> None:
    """Without a timeout it is left behind at once, with one it is waited for."""
    async with open_topics() as server:
        async with open_client(server, identity="one", reconnect=None) as client:
            async with client.subscribe("topic"), trio.open_nursery() as nursery:
                nursery.start_soon(_cut_after, client, 1.0)
                receipt = await server.publish("topic", 1, wait="confirmed", timeout=timeout)
        assert (receipt.confirmed, receipt.missing) == (NOBODY, {"one"})
        assert trio.current_time() == pytest.approx(60.0 if timeout else 1.0, abs=0.01)


async def _cut_after(client: Connection, delay: float) -> None:
    await trio.sleep(delay)
    cut(client)


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_who_leaves_is_not_waited_for(timeout: float | None, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), trio.open_nursery() as nursery:

        async def leave() -> None:
            async with client.subscribe("topic"):
                await trio.sleep(1.0)

        nursery.start_soon(leave)
        await settle()
        receipt = await server.publish("topic", 1, wait="confirmed", timeout=timeout)
        assert (receipt.confirmed, receipt.missing) == (NOBODY, {client.id})
        assert trio.current_time() == pytest.approx(1.0)


async def test_who_handles_it_and_leaves_in_the_same_moment_has_confirmed(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), trio.open_nursery() as nursery:

        async def read_one() -> None:
            async with client.subscribe("topic") as topic:
                await take(topic, 1)

        nursery.start_soon(read_one)
        await settle()
        receipt = await server.publish("topic", 1, wait="confirmed")
        assert (receipt.confirmed, receipt.missing) == ({client.id}, NOBODY)


async def test_who_subscribes_later_confirms_nothing_for_another(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic"):
        async with trio.open_nursery() as nursery:

            async def subscribe_later() -> None:
                async with client.subscribe("topic") as later:
                    await publish(server, ["later"])
                    await _read(later, 0.0)

            nursery.start_soon(subscribe_later)
            receipt = await server.publish("topic", 1, wait="confirmed", timeout=10.0)
            assert (receipt.confirmed, receipt.missing) == (NOBODY, {client.id})
            nursery.cancel_scope.cancel()


async def test_who_begins_behind_the_update_never_had_it(autojump_clock: MockClock) -> None:
    """A client that begins anew under its old name, without the position it had."""
    async with open_topics() as server, trio.open_nursery() as nursery:

        async def begin_anew() -> None:
            async with open_client(server, identity="one", reconnect=None) as client:
                async with client.subscribe("topic"):
                    await trio.sleep(1.0)
                    cut(client)
                    await settle()
            async with open_client(server, identity="one") as client, client.subscribe("topic") as topic:
                await _read(topic, 0.0)

        nursery.start_soon(begin_anew)
        await settle()
        receipt = await server.publish("topic", 1, wait="confirmed", timeout=10.0)
        assert (receipt.confirmed, receipt.missing) == (NOBODY, {"one"})
        assert (await server.publish("topic", 2, wait="confirmed")).confirmed == {"one"}
        nursery.cancel_scope.cancel()


async def test_who_takes_its_own_place_is_not_given_up(autojump_clock: MockClock) -> None:
    """The server, which vouches for its clients, sees the new link before it sees the end of the old one."""
    vouch = attrgetter("identity")
    async with open_topics(authenticate=vouch) as server, trio.open_nursery() as nursery:

        async def take_over(since: Position) -> None:
            await trio.sleep(1.0)
            async with open_client(server, identity="one") as client:
                async with client.subscribe("topic", since=since) as topic:
                    await _read(topic, 2.0)

        async with open_client(server, identity="one") as client, client.subscribe("topic") as topic:
            nursery.start_soon(take_over, topic.position)
            await settle()
            stop_reading(client)
            receipt = await server.publish("topic", 1, wait="confirmed")
            assert receipt.confirmed == {"one"}
            assert trio.current_time() == pytest.approx(3.0)
        nursery.cancel_scope.cancel()


async def test_a_position_is_a_claim_to_have_had_it(autojump_clock: MockClock) -> None:
    """A client that begins anew, under its old name, with a position that it kept."""
    async with open_topics() as server, trio.open_nursery() as nursery:
        positions: list[Position] = []

        async def read(until: float, since: Position | None = None) -> None:
            async with open_client(server, identity="one", reconnect=None) as client:
                async with client.subscribe("topic", since=since) as topic:
                    with trio.move_on_after(until):
                        async for update in topic:
                            positions.append(update.position)
                            await trio.sleep(2)
                    if since is None:
                        cut(client)

        async def twice() -> None:
            await read(1.0)
            await trio.sleep(3)
            await read(10.0, positions[0])

        nursery.start_soon(twice)
        await settle()
        receipt = await server.publish("topic", 1, wait="confirmed", timeout=20.0)
        assert receipt.confirmed == {"one"}
        assert trio.current_time() == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("wait", ["sent", "confirmed"])
async def test_a_connection_with_two_subscriptions_has_what_both_have(
    wait: Any, autojump_clock: MockClock
) -> None:
    async with open_pair() as (server, client):
        async with client.subscribe("topic") as one, client.subscribe("topic") as two:
            await publish(server, range(WINDOW_COUNT))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read, one, 0.0)
                receipt = await server.publish("topic", "last", wait=wait, timeout=5.0)
                assert (receipt.confirmed, receipt.missing) == (NOBODY, {client.id})
                nursery.start_soon(_read, two, 0.0)
                receipt = await server.publish("topic", "last", wait=wait, timeout=5.0)
                assert (receipt.confirmed, receipt.missing) == ({client.id}, NOBODY)
                nursery.cancel_scope.cancel()


async def _read(subscription: Subscription[Any], delay: float) -> None:
    async for _ in subscription:
        await trio.sleep(delay)


async def test_a_newer_update_in_its_place_is_enough(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=1)) as (server, client), trio.open_nursery() as nursery:
        receipts = []

        async def published(value: int) -> None:
            receipts.append(await server.publish("topic", value, wait="confirmed"))

        async def read(policy: SlowPolicy) -> None:
            async with client.subscribe("topic", policy=policy) as topic:
                while True:
                    await take(topic, 1)
                    await trio.sleep(1.0)

        nursery.start_soon(read, "keep newest")
        nursery.start_soon(read, "drop oldest")
        await settle()
        for value in range(2 * WINDOW_COUNT):
            nursery.start_soon(published, value)
        await trio.sleep(2 * WINDOW_COUNT)
        assert len(receipts) == 2 * WINDOW_COUNT
        assert all(receipt.confirmed == {client.id} for receipt in receipts)
        nursery.cancel_scope.cancel()


# When it is sent.


async def test_sent_is_when_the_window_let_it_go(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        await publish(server, range(WINDOW_COUNT - 1))
        receipt = await server.publish("topic", "the last that fits", wait="sent")
        assert receipt.confirmed == {client.id}
        receipt = await server.publish("topic", "one too many", wait="sent", timeout=3.0)
        assert (receipt.confirmed, receipt.missing) == (NOBODY, {client.id})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, topic, WINDOW_COUNT + 1)
            receipt = await server.publish("topic", "with room", wait="sent")
            assert receipt.confirmed == {client.id}


@pytest.mark.parametrize("size", [10, 60_000, 500_000])
async def test_sent_is_when_the_transport_has_taken_it(size: int, autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic"):
        link = link_of(server.connections[client.id])
        stream: Any = link.stream
        send_all = stream.send_all
        slow = trio.Event()

        async def send_slowly(data: bytes) -> None:
            await slow.wait()
            await send_all(data)

        stream.send_all = send_slowly
        await publish(server, ["the transport takes this, and is busy with it"])
        await settle()
        assert await is_stuck(lambda: server.publish("topic", bytes(size), wait="sent"))
        before = trio.current_time()
        slow.set()
        assert (await server.publish("topic", 1, wait="sent")).confirmed == {client.id}
        assert trio.current_time() == before


async def test_sent_does_not_wait_for_what_others_send(autojump_clock: MockClock) -> None:
    """A small update goes with the next write, however much else there is to write."""
    async with open_pair() as (server, client), client.subscribe("topic"), client.subscribe("bulk"):
        connection = server.connections[client.id]
        link = link_of(connection)
        await server.publish("bulk", bytes(20_000_000))
        await server.publish("topic", 1, wait="sent")
        assert link.backlog > 10_000_000


async def test_sent_to_a_link_that_breaks_is_missing(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic"):
        link = link_of(server.connections[client.id])
        stream: Any = link.stream

        async def never(_data: bytes) -> None:
            await trio.sleep_forever()

        stream.send_all = never
        await publish(server, ["the transport takes this, and is busy with it"])
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cut_after, client, 1.0)
            receipt = await server.publish("topic", 1, wait="sent")
        assert (receipt.confirmed, receipt.missing) == (NOBODY, {client.id})


# Mistakes.


@pytest.mark.parametrize("wait", ["received", True, 1, ""])
async def test_a_wrong_wait_is_refused(wait: Any, autojump_clock: MockClock) -> None:
    async with open_topics() as server:
        with pytest.raises(ConfigurationError, match=r"wait must be one of 'stored', .* or None, not"):
            await server.publish("topic", 1, wait=wait)
        assert not server.statistics().topics


@pytest.mark.parametrize("timeout", [-1.0, math.nan])
async def test_a_wrong_timeout_is_refused(timeout: float, autojump_clock: MockClock) -> None:
    async with open_topics() as server:
        with pytest.raises(ConfigurationError, match="timeout must be seconds of at least 0"):
            await server.publish("topic", 1, timeout=timeout)


async def test_a_publisher_that_is_cancelled_has_published(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        assert await is_stuck(lambda: server.publish("topic", 1, wait="confirmed"))
        await publish(server, [2])
        assert [update.value for update in await take(topic, 2)] == [1, 2]
