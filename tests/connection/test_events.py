"""Events: order, bounds, and readers that take over from each other."""

from __future__ import annotations

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
    ConnectionClosed,
    ConnectionState,
    Limits,
    LocalProtocolError,
    Lost,
    Message,
    Reconnected,
    SerializationError,
)
from heartline.connection import Events

from .helpers import cut, data, open_pair, open_to_raw, run, settle


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=30))
def test_the_newest_states_and_nothing_else_is_kept(size: int, script: list[bool]) -> None:
    """Events against a plain model: send (True) and read (False)."""

    async def main() -> None:
        events: Events[Any] = Events(size)
        model: deque[int] = deque(maxlen=size)
        dropped = 0
        for number, send in enumerate(script):
            if send:
                dropped += len(model) == size
                model.append(number)
                events.send(number)
            elif model:
                assert await anext(events) == model.popleft()
            assert events.dropped == dropped
        events.end()
        assert [event async for event in events] == list(model)

    run(main)


async def test_a_life_in_order(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=Backoff(initial=0.1)) as (client, there, server):
        events = client.events()
        await there.send(1)
        await settle()
        cut(there)
        await settle()
        await client.wait_open()
        await settle()
        await server.send_to(client.id, 2)
        await settle()
        await client.aclose()
        told = [event async for event in events]
    assert [type(event) for event in told] == [Message, Lost, Reconnected, Message, Lost, Closed]
    assert [event.value for event in told if isinstance(event, Message)] == [1, 2]
    assert all(event.connection is client for event in told)
    assert isinstance(told[-1].reason, ConnectionClosed)
    assert client.state is ConnectionState.CLOSED
    assert [event async for event in client.events()] == []


async def test_states_are_dropped_and_counted_messages_are_not(autojump_clock: MockClock) -> None:
    limits = Limits(events=3)
    async with open_pair(limits=limits, reconnect=Backoff(initial=0.1)) as (client, there, server):
        events = client.events()
        for number in range(5):
            await server.send_to(client.id, number)
            await settle()
            cut(server.connections[client.id])
            await settle()
            await client.wait_open()
            await settle()
        assert events.dropped == 10 - 3
        told = [await anext(events) for _ in range(5 + 3)]
    assert [event.value for event in told if isinstance(event, Message)] == [0, 1, 2, 3, 4]
    states = [type(event) for event in told if not isinstance(event, Message)]
    assert states == [Reconnected, Lost, Reconnected]


async def test_messages_in_the_events_hold_credit_until_they_are_read(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(window=1)) as (client, there, _):
        events = there.events()
        await client.send(b"one")
        await settle()
        assert not client.send_nowait(b"two")
        message = await anext(events)
        assert isinstance(message, Message)
        assert message.value == b"one"
        await settle()
        assert client.send_nowait(b"two")


async def test_events_begin_with_what_was_not_read(autojump_clock: MockClock) -> None:
    """Or it would lie in an inbox that nobody looks at, and hold the sender's credit for ever."""
    async with open_pair(limits=Limits(window=100)) as (client, there, _):
        await client.send(b"x" * 50)
        await client.send(b"y" * 50)
        await settle()
        assert not client.send_nowait(b"z")
        events = there.events()
        assert (await anext(events)).value == b"x" * 50
        assert (await anext(events)).value == b"y" * 50
        await settle()
        assert client.send_nowait(b"z")
        assert (await anext(events)).value == b"z"


async def test_a_later_reader_takes_over(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, there, _), trio.open_nursery() as nursery:
        first = client.events()
        got = []

        @nursery.start_soon
        async def read_first() -> None:
            got.extend([event.value async for event in first])

        await there.send("for the first")
        await settle()
        second = client.events()
        await settle()
        assert got == ["for the first"]
        await there.send("for the second")
        assert (await anext(second)).value == "for the second"


async def test_what_the_earlier_reader_left_goes_to_the_later(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(window=200)) as (client, there, _):
        first = client.events()
        for number in range(3):
            await there.send(b"%d" % number * 50)
        await settle()
        assert (await anext(first)).value == b"0" * 50
        second = client.events()
        assert [event async for event in first] == []
        assert [(await anext(second)).value for _ in range(2)] == [b"1" * 50, b"2" * 50]
        await settle()
        for _ in range(10):
            await there.send(b"." * 100)
            await anext(second)


@pytest.mark.parametrize("source", ["connection", "server"])
async def test_messages_that_go_to_events_are_not_received(source: str, autojump_clock: MockClock) -> None:
    """Neither from now on nor by who waits already: it would wait for ever."""
    async with open_pair() as (client, there, server), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(LocalProtocolError, match=r"events\(\)"):
                await there.receive()

        nursery.start_soon(receive)
        await settle()
        events = there.events() if source == "connection" else server.events()
        await settle()
        assert not nursery.child_tasks
        await receive()
        await client.send("to the events")
        assert (await anext(events)).value == "to the events"


async def test_a_message_that_cannot_be_decoded_does_not_end_the_events() -> None:
    async with open_to_raw() as (connection, peer):
        events = connection.events()
        await peer.send(data(b"\xff", number=1), data(b"good"))
        bad = await anext(events)
        assert isinstance(bad, Message)
        with pytest.raises(SerializationError):
            _ = bad.value
        assert (await anext(events)).value == b"good"
