"""Nothing that a publisher or a peer does holds the loop for longer than a set amount of work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heartline import Server, TopicSettings
from heartline.push import Push
from heartline.push._served import Served
from heartline.push._topic import TURN
from heartline.push._wire import LEAVE
from tests.engine import core_of
from tests.push.helpers import HandSubscriber, open_client, open_pair, open_topics, settle
from tests.push.stores import Disk, FakeStore

CLIENTS, EACH = 3, 1000


class Steps(trio.abc.Instrument):
    """Counts the cursors that are moved in each step of the loop."""

    def __init__(self) -> None:
        self.most = self.now = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.now = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, self.now)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    counted = Steps()
    advance = Served.advance

    def count(served: Served, *most: float) -> bool:
        counted.now += 1
        return advance(served, *most)

    monkeypatch.setattr(Served, "advance", count)
    return counted


@asynccontextmanager
async def open_crowd(**settings: Any) -> AsyncIterator[tuple[Server, list[HandSubscriber]]]:
    """A server, and 3,000 subscriptions to its topic."""
    async with (
        open_topics(**settings) as server,
        open_client(server) as one,
        open_client(server) as two,
        open_client(server) as three,
    ):
        hands = [HandSubscriber(client) for client in (one, two, three)]
        for hand in hands:
            for key in range(EACH):
                number, _, position = await hand.subscribe("topic", key=key)
                hand.post(number, position.to_bytes(8))
        await settle()
        yield server, hands


@pytest.mark.parametrize("durable", [False, True])
async def test_a_publish_moves_the_cursors_in_turns(
    durable: bool, steps: Steps, autojump_clock: MockClock
) -> None:
    topics = {"topic": TopicSettings(store=FakeStore(Disk()) if durable else None)}
    async with open_crowd(topics=topics) as (server, hands):
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as nursery:
            for value in range(3):
                nursery.start_soon(server.publish, "topic", value)
        trio.lowlevel.remove_instrument(steps)
        await settle()
        # Beside the turns, what the confirmations in one read call for; there are none here.
        assert 0 < steps.most <= TURN
        assert [len(hand.frames) for hand in hands] == [3 * EACH] * CLIENTS


async def test_a_publish_that_is_cancelled_in_its_turns_reaches_everybody(autojump_clock: MockClock) -> None:
    async with open_crowd() as (server, hands):
        topic = server._publisher.find("topic")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.publish, "topic", "value")
                while not topic.log.last:
                    await trio.lowlevel.checkpoint()
                assert sum(served.cursor == 2 for served in topic.served.values()) < CLIENTS * EACH
                scope.cancel()
        await settle()
        assert [len(hand.frames) for hand in hands] == [EACH] * CLIENTS


async def test_deleting_a_topic_ends_its_subscriptions_in_turns(autojump_clock: MockClock) -> None:
    async with open_crowd() as (server, hands):
        others = 0
        deleted = trio.Event()

        async def delete() -> None:
            await server.delete_topic("topic")
            deleted.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            while not deleted.is_set():
                others += 1
                await trio.lowlevel.checkpoint()
        assert others > CLIENTS * EACH / TURN
        await settle()
        assert [len(hand.frames) for hand in hands] == [EACH] * CLIENTS
        assert "topic" not in server.statistics().topics


class Unread(dict[int, Served]):
    """A table of which only single rows may be asked for."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("somebody looks through all subscriptions")

    __iter__ = values = items = keys = _refuse


async def test_what_a_peer_asks_costs_the_same_however_many_subscriptions_it_has(
    autojump_clock: MockClock,
) -> None:
    async with open_pair() as (server, client):
        hand = HandSubscriber(client)
        push = core_of(server.connections[client.id]).part(Push)
        tables = push._served, push._served_by_key
        push._served, push._served_by_key = Unread(), Unread()
        for key in range(3):
            await hand.subscribe(f"topic {key}", key=key)
        await hand.leave(77)
        await hand.leave(1)
        await hand.subscribe("topic 1", key=1)
        await hand.confirm(2, LEAVE)
        assert client.statistics().links == 1
        push._served, push._served_by_key = tables


async def test_leaving_looks_at_no_other_subscription(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while somebody waits for confirmations of the topic."""
    async with open_crowd() as (server, hands), trio.open_nursery() as nursery:
        nursery.start_soon(
            server.publish,
            "topic",
            1,
        )
        await settle()

        async def wait() -> None:
            await server.publish("topic", 2, wait="confirmed")

        nursery.start_soon(wait)
        await settle()
        topic = server._publisher.find("topic")
        topic.served = Unread(topic.served)  # type: ignore[assignment, arg-type]
        await hands[0].leave(5)
        assert len(topic.served) == CLIENTS * EACH - 1
        nursery.cancel_scope.cancel()
