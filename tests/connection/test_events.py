"""Events: order, bounds, and feeds that are read side by side."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import (
    Backoff,
    Closed,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    ConnectionState,
    Limits,
)
from heartline.connection import Events
from heartline.connection._events import Feeds

from .helpers import cut, open_pair, run, settle

SOON = Backoff(initial=0.1)


def names(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


# Feeds against a plain model

steps = st.tuples(st.sampled_from(["open", "send", "send", "read", "drop"]), st.integers(0, 3))


@given(st.integers(1, 4), st.lists(steps, max_size=60))
def test_each_feed_has_the_newest_since_it_was_opened(size: int, script: list[tuple[str, int]]) -> None:
    """Whatever the others read or drop; one that nobody holds is forgotten, with what it has dropped."""

    async def main() -> None:
        feeds: Feeds[int] = Feeds()
        held: list[Events[int]] = []
        models: list[deque[int]] = []
        missed: list[int] = []
        for number, (step, index) in enumerate(script):
            if step == "open":
                held.append(feeds.open(size))
                models.append(deque(maxlen=size))
                missed.append(0)
            elif step == "send":
                feeds.send(number)
                for which, model in enumerate(models):
                    missed[which] += len(model) == size
                    model.append(number)
            elif index < len(held) and step == "drop":
                del held[index], models[index], missed[index]
            elif index < len(held) and models[index]:
                assert await anext(held[index]) == models[index].popleft()
            assert len(feeds) == len(held)
            assert [events.dropped for events in held] == missed
            assert feeds.dropped == sum(missed)
        feeds.end()
        for events, model in zip(held, models, strict=True):
            assert [event async for event in events] == list(model)
        assert [event async for event in feeds.open(size)] == []

    run(main)


# A connection's life


async def test_a_life_in_order(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=SOON) as (client, there, server):
        events, others = client.events(), there.events()
        await there.send("a message is no event")
        await settle()
        cut(there)
        await settle()
        await client.wait_open()
        await settle()
        later = server.connections[client.id].events()
        await client.aclose()
        told = [event async for event in events]
        assert names(told) == ["Lost", "Reconnected", "Lost", "Closed"]
        assert all(event.connection is client for event in told)
        assert isinstance(told[-1], Closed)
        assert isinstance(told[-1].reason, ConnectionClosed)
        assert client.state is ConnectionState.CLOSED
        assert [event async for event in client.events()] == []
        # A session that ends with its link has nothing to wait for: that is not lost, but closed.
        for feed, kind in ((others, ConnectionLost), (later, ConnectionClosed)):
            (closed,) = [event async for event in feed]
            assert isinstance(closed, Closed)
            assert isinstance(closed.reason, kind)


async def lose(client: Connection, there: Connection) -> None:
    """Lose the link, and be back."""
    cut(there)
    await settle()
    await client.wait_open()
    await settle()


@pytest.mark.parametrize("source", ["client", "server", "its connection"])
async def test_two_readers_see_the_same(source: str, autojump_clock: MockClock) -> None:
    """Each of them all that happens from its beginning on, at its own pace."""
    async with open_pair(reconnect=SOON, resume_window=60) as (client, there, server):
        owner: Any = {"client": client, "server": server, "its connection": there}[source]
        quick, slow = owner.events(), owner.events()
        told = []
        for _ in range(2):
            await lose(client, there)
            told += [await anext(quick), await anext(quick)]
        late = owner.events()
        await lose(client, there)
        told += [await anext(quick), await anext(quick)]
        assert names(told) == ["Lost", "Reconnected"] * 3
        assert [await anext(slow) for _ in told] == told
        assert [await anext(late) for _ in range(2)] == told[-2:]


async def test_the_feeds_are_bounded_and_what_is_dropped_is_counted(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(events=3), reconnect=SOON, resume_window=60) as (
        client,
        there,
        server,
    ):
        lagging, own, reader = server.events(), there.events(), client.events()
        for _ in range(5):
            await lose(client, there)
            assert names([await anext(reader), await anext(reader)]) == ["Lost", "Reconnected"]
        assert (lagging.dropped, own.dropped, reader.dropped) == (10 - 3, 10 - 3, 0)
        assert server.statistics().events_dropped == 10 - 3
        for feed in (lagging, own):
            assert names([await anext(feed) for _ in range(3)]) == ["Reconnected", "Lost", "Reconnected"]


async def test_a_feed_that_is_dropped_is_forgotten(autojump_clock: MockClock) -> None:
    limits = Limits(events=1)
    async with open_pair(limits=limits, reconnect=SOON, resume_window=60) as (client, there, server):
        feeds = [source.events() for source in (client, there, server) for _ in range(100)]
        await lose(client, there)
        assert server.statistics().events_dropped == 100
        kept = feeds[-1]
        gone = [weakref.ref(feed) for feed in feeds[:-1]]
        feeds.clear()
        assert [ref for ref in gone if ref() is not None] == []
        assert server.statistics().events_dropped == kept.dropped == 1


async def test_a_feed_that_only_its_reader_holds_is_not(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=SOON, resume_window=60) as (client, there, _):
        told: list[str] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                async for event in client.events():
                    kind = type(event).__name__
                    told.append(kind)

            await settle()
            await lose(client, there)
            assert told == ["Lost", "Reconnected"]
            await client.aclose()
        assert told == ["Lost", "Reconnected", "Lost", "Closed"]


async def test_cancelling_loses_no_event(autojump_clock: MockClock) -> None:
    """Cancelled while it waits, or in the tick in which the event comes."""
    feeds: Feeds[int] = Feeds()
    events = feeds.open(10)
    got: list[int] = []

    async def read() -> None:
        got.append(await anext(events))

    for number, order in enumerate(["cancel", "cancel send", "send cancel"]):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await settle()
            for step in order.split():
                if step == "send":
                    feeds.send(number)
                else:
                    nursery.cancel_scope.cancel()
    feeds.end()
    got += [event async for event in events]
    assert got == [1, 2]
