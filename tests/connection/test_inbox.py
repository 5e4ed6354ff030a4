"""The inbox: what waits there, whom it is for, and when its sender may go on."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import Backoff, Connection, ConnectionClosed, ConnectionLost, Limits, SerializationError

from .helpers import cut, data, open_pair, open_to_raw, run, settle


async def test_messages_hold_credit_until_they_are_read(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(window=100)) as (client, there, _):
        await client.send(b"x" * 50)
        await client.send(b"y" * 50)
        await settle()
        with pytest.raises(trio.WouldBlock):
            client.send_nowait(b"z")
        messages = there.messages()
        assert [await anext(messages) for _ in range(2)] == [b"x" * 50, b"y" * 50]
        await settle()
        client.send_nowait(b"z")
        assert await there.receive() == b"z"


# Who gets what

steps = st.sampled_from(["send", "receive", "all", "cancel", "tick"])


@given(st.lists(steps, max_size=60))
def test_every_message_has_one_reader_and_none_is_lost(script: list[str]) -> None:
    """Readers of the connection and of its server come and go, in any order of everything."""

    async def main() -> None:
        got: list[tuple[str, int]] = []
        waiting: list[trio.CancelScope] = []
        sent = 0

        async def read(which: str) -> None:
            with trio.CancelScope() as scope:
                waiting.append(scope)
                if which == "receive":
                    got.append((which, await there.receive()))
                else:
                    got.append((which, (await anext(messages)).value))

        async with open_pair() as (client, there, server), trio.open_nursery() as nursery:
            messages = server.messages()
            for step in script:
                if step == "send":
                    await client.send(sent)
                    sent += 1
                elif step == "cancel" and waiting:
                    waiting.pop(0).cancel()
                elif step == "tick":
                    await trio.lowlevel.checkpoint()
                else:
                    nursery.start_soon(read, step)
            await settle()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                while len(got) < sent:
                    got.append(("receive", await there.receive()))
        assert [number for _, number in got] == list(range(sent))
        # Once the connection has its own reader, what comes is for that.
        kinds = [which for which, _ in got]
        if "receive" in kinds:
            assert "all" not in kinds[kinds.index("receive") :]

    run(main)


async def test_readers_of_a_connection_are_served_in_order(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, there, _), trio.open_nursery() as nursery:
        got: list[tuple[int, Any]] = []

        async def read(reader: int) -> None:
            got.append((reader, await client.receive()))

        for reader in range(5):
            nursery.start_soon(read, reader)
            await settle()
        for number in range(5):
            await there.send(number)
            await settle()  # those that are woken in one tick run in any order
        assert got == [(number, number) for number in range(5)]


async def test_a_message_that_cannot_be_decoded_does_not_end_the_messages() -> None:
    async with open_to_raw() as (connection, peer):
        messages = connection.messages()
        await peer.send(data(b"\xff", number=1), data(b"good"))
        with pytest.raises(SerializationError):
            await anext(messages)
        assert await anext(messages) == b"good"


# The end


async def rest(connection: Connection) -> list[Any]:
    return [message async for message in connection.messages()]


@pytest.mark.parametrize("way", ["closed here", "closed there", "lost"])
async def test_the_messages_end_with_the_connection_when_they_are_read(
    way: str, autojump_clock: MockClock
) -> None:
    """Also where somebody waits for the next one."""
    async with open_pair(reconnect=None) as (client, there, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await rest(there) == ["read"]

        await settle()
        await client.send("read")
        await settle()
        for number in range(3):
            await there.send(number)
        await settle()
        if way == "lost":
            cut(client)
        else:
            await (client if way == "closed here" else there).aclose()
        await settle()
        assert await rest(client) == [0, 1, 2]
        assert await rest(client) == []
        with pytest.raises(ConnectionLost if way == "lost" else ConnectionClosed):
            await client.receive()


async def test_messages_go_on_over_sessions(autojump_clock: MockClock) -> None:
    """What an old session left is read, and costs the new one nothing."""
    limits = Limits(window=100)
    async with open_pair(limits=limits, reconnect=Backoff(initial=0.1)) as (client, there, server):
        messages = client.messages()
        await there.send(b"1" * 100)
        await settle()
        cut(there)
        await settle()
        await client.wait_open()
        await settle()
        there = server.connections[client.id]
        await there.send(b"2" * 100)
        await settle()
        assert await anext(messages) == b"1" * 100
        await settle()
        with pytest.raises(trio.WouldBlock):
            there.send_nowait(b"the window is still full")
        assert await anext(messages) == b"2" * 100
        await settle()
        there.send_nowait(b"3")
        assert await anext(messages) == b"3"
