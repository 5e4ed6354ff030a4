"""Channels: order, ends from either side, limits, credit, and what a link's loss leaves of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import (
    Backoff,
    Channel,
    ChannelBroken,
    ConnectionLost,
    HeartlineError,
    Limits,
    SerializationError,
)
from heartline.session.messages import CONFIRMATION
from heartline.session.outbox import MESSAGE_COST
from heartline.wire import Frame, FrameType

from ..engine import link_of, number_of
from .helpers import SOCKETS, cut, data, open_pair, open_to_raw, opened, pair_of_channels, run, settle, url_of

CLOSE, RESET = FrameType.CLOSE, FrameType.RESET
WINDOW = Limits().window


# What arrives


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=3000) | st.text()), max_size=40))
def test_every_channel_keeps_its_order(plan: list[tuple[int, Any]]) -> None:
    async def main() -> None:
        async with open_pair() as (client, there, _):
            sending = [await client.open_channel("0"), await there.open_channel("1")]
            sending += [await client.open_channel("2"), await there.open_channel("3")]
            got: dict[str, list[Any]] = {str(n): [] for n in range(4)}

            async def collect(channel: Channel) -> None:
                got[channel.name].extend([message async for message in channel])

            async with trio.open_nursery() as nursery:
                for side in (there, client, there, client):
                    nursery.start_soon(collect, await side.accept_channel())
                for number, message in plan:
                    await sending[number].send(message)
                for channel in sending:
                    await channel.aclose()
            for number in range(4):
                assert got[str(number)] == [message for n, message in plan if n == number]
            await settle()
            assert client.statistics().channels == there.statistics().channels == 0

    run(main)


@pytest.mark.parametrize("kind", SOCKETS)
async def test_arrays_over_sockets(kind: str, tmp_path: object) -> None:
    array = np.arange(100_000, dtype=np.int64)
    async with open_pair(url_of(kind, tmp_path)) as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        await ours.send([array, array[:3]])
        one, two = await theirs.receive()
        np.testing.assert_array_equal(one, array)
        np.testing.assert_array_equal(two, array[:3])


async def test_many_at_a_time_in_both_directions() -> None:
    async with open_pair() as (client, there, _), trio.open_nursery() as nursery:

        async def echo() -> None:
            channel = await there.accept_channel()
            async for message in channel:
                await channel.send([channel.name, message])
            await channel.aclose()

        async def talk(name: str) -> None:
            async with await client.open_channel(name) as channel:
                for number in range(20):
                    await channel.send(number)
                    assert await channel.receive() == [name, number]

        for number in range(50):
            nursery.start_soon(echo)
            nursery.start_soon(talk, f"channel {number}")


# How they end


async def test_data_before_the_close_arrives(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        for number in range(3):
            await ours.send(number)
        await ours.send(bytes(1_000_000))
        await ours.aclose()
        assert [await theirs.receive() for _ in range(3)] == [0, 1, 2]
        assert len(await theirs.receive()) == 1_000_000
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await theirs.receive()
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send(b"x")
        await theirs.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.receive()


async def test_closed_here() -> None:
    async with open_pair() as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        await theirs.send("never read")
        await ours.aclose()
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive()


@pytest.mark.parametrize("window", [1, 1 << 30])
async def test_closing_wakes_who_waits_here(window: int, autojump_clock: MockClock) -> None:
    """Be it for credit, or for a peer that does not read."""
    raw = {"limits": Limits(window=window, memory=1 << 42)}
    async with open_to_raw(raw=raw, limits=Limits(write_buffer=100_000)) as (client, _peer):
        ours = await client.open_channel("x")
        with trio.move_on_after(1) as scope:
            while True:
                await ours.send(bytes(20_000))
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            for wait in (ours.receive, lambda: ours.send(b"no room")):

                @nursery.start_soon
                async def waiting(wait: Any = wait) -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await wait()

            await settle()
            await ours.aclose()
        assert trio.current_time() == 1


async def test_the_peers_close_wakes_who_waits_here(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(window=1)) as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        await ours.send(b"fills the window")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receiving() -> None:
                with pytest.raises(trio.EndOfChannel):
                    await ours.receive()

            @nursery.start_soon
            async def sending() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await ours.send(b"no room")

            await settle()
            await theirs.aclose()
        assert trio.current_time() == 0


async def test_both_close_at_once() -> None:
    async with open_pair() as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        await ours.send("from here")
        await theirs.send("from there")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.aclose)
            nursery.start_soon(theirs.aclose)
        await settle()
        assert client.statistics().channels == there.statistics().channels == 0
        await client.send(b"still fine")
        assert await there.receive() == b"still fine"


async def test_closed_while_half_of_a_message_is_under_way(autojump_clock: MockClock) -> None:
    """The CLOSE comes in the place of the rest, and the peer's assembly forgets its half."""
    async with open_pair() as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, bytes(5_000_000))
            await trio.lowlevel.checkpoint()
            nursery.start_soon(theirs.aclose)
        await settle()
        assert client.statistics().channels == there.statistics().channels == 0
        for _ in range(3):
            again, other = await pair_of_channels(client, there)
            await again.send("fine")
            assert await other.receive() == "fine"


async def test_reset_is_an_end_with_a_reason() -> None:
    async with open_to_raw() as (connection, peer):
        await peer.send(opened(2), data(b"before", channel=2))
        channel = await connection.accept_channel()
        await peer.send(Frame(RESET, channel=2, payload=b"enough " + b"!" * 5000))
        assert await channel.receive() == b"before"
        for wait in (channel.receive, lambda: channel.send(b"x")):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await wait()
            assert "enough !" in str(caught.value.__cause__)
            assert len(str(caught.value.__cause__)) < 400


async def test_items_of_a_call_are_no_channels() -> None:
    """A call with a lane is refused here, and what was sent on its lane before is dropped."""
    async with open_to_raw() as (connection, peer):
        call = Frame(FrameType.CALL, channel=2, id=1, payload=bytes(8))
        await peer.send(call, data(b"item", channel=2), Frame(CLOSE, channel=2), data(b"fine"))
        assert await connection.receive() == b"fine"
        assert connection.statistics().channels == 0


# Credit


async def test_a_blocked_channel_stalls_only_itself(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, there, _):
        stuck, _unread = await pair_of_channels(client, there, "stuck")
        lively, reader = await pair_of_channels(client, there, "lively")
        with trio.move_on_after(1) as scope:
            while True:
                await stuck.send(bytes(10_000))
        assert scope.cancelled_caught
        for number in range(1000):
            await lively.send(bytes(1000))
            assert len(await reader.receive()) == 1000
            if number % 100 == 0:
                await client.send(number)
                assert await there.receive() == number
        assert trio.current_time() == 1


async def test_credit_is_given_for_what_is_read_and_no_more(autojump_clock: MockClock) -> None:
    async with open_to_raw() as (connection, peer):
        await peer.send(opened(2), *[data(bytes(100), channel=2)] * 5)
        channel = await connection.accept_channel()
        for _ in range(2):
            await channel.receive()
        await channel.aclose()  # what is not read is dropped, and paid back too
        assert [event.type for event in await peer.events()] == [CLOSE]
        await peer.send(data(bytes(50), channel=2))
        await settle()
        with trio.move_on_after(0.01):
            await peer.events()
        given = [CONFIRMATION.unpack(f.payload)[0] for f in peer.control if f.type == FrameType.CREDIT]
        assert given[-1] == 5 * (100 + MESSAGE_COST) + 50 + MESSAGE_COST


async def test_an_ended_channel_keeps_its_number_until_it_is_read() -> None:
    """What is not read is held for the peer: it cannot open others beyond its limit meanwhile."""
    async with open_to_raw() as (connection, peer):
        await peer.send(opened(2), data(b"one", channel=2), data(b"two", channel=2))
        old = await connection.accept_channel()
        await peer.send(Frame(CLOSE, channel=2))
        await settle()
        assert await old.receive() == b"one"
        await connection.send(b"marker")
        assert [event.payload for event in await peer.events()] == [b"marker"]
        assert connection.statistics().held >= len(b"two")
        assert await old.receive() == b"two"
        assert [event.type for event in await peer.events()] == [CLOSE]
        await peer.send(opened(2), data(b"new", channel=2))
        new = await connection.accept_channel()
        with pytest.raises(trio.EndOfChannel):
            await old.receive()
        await old.aclose()
        await connection.send(b"marker")
        assert [event.payload for event in await peer.events()] == [b"marker"]
        assert FrameType.CREDIT not in peer.kinds()
        assert await new.receive() == b"new"


async def test_closing_an_ended_channel_frees_what_nobody_read() -> None:
    async with open_to_raw() as (connection, peer):
        await peer.send(opened(2), data(b"one", channel=2), Frame(CLOSE, channel=2))
        await (await connection.accept_channel()).aclose()
        assert [event.type for event in await peer.events()] == [CLOSE]
        assert link_of(connection).session._lanes.unread == 0


# The link


async def test_the_links_loss_breaks_every_channel(autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=0.1)
    async with open_pair(limits=Limits(window=50), reconnect=backoff) as (client, there, server):
        ours, theirs = await pair_of_channels(client, there)
        await theirs.send("arrived")
        await ours.send(bytes(50))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def sending() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await ours.send("no room")

            @nursery.start_soon
            async def accepting() -> None:
                with pytest.raises(ConnectionLost):
                    await client.accept_channel()

            await settle()
            cut(there)
        assert await ours.receive() == "arrived"
        with pytest.raises(trio.BrokenResourceError) as caught:
            await ours.receive()
        assert isinstance(caught.value, ChannelBroken)
        assert isinstance(caught.value, HeartlineError)
        assert isinstance(caught.value.__cause__, ConnectionLost)
        assert str(caught.value).endswith(str(caught.value.__cause__))
        with pytest.raises(ConnectionLost):
            await client.open_channel("no link")

        # An old channel has nothing to do with a new one of the same number.
        await client.wait_open()
        await settle()
        new, new_there = await pair_of_channels(client, server.connections[client.id])
        assert number_of(new) == number_of(ours)
        await ours.aclose()
        await theirs.aclose()
        await new.send("fine")
        assert await new_there.receive() == "fine"
        assert client.statistics().channels == 1


async def test_closing_a_channel_after_the_end_is_fine() -> None:
    async with open_pair() as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        await client.aclose()
        await settle()
        await ours.aclose()
        await theirs.aclose()


async def test_a_bad_message_is_an_error_of_its_own() -> None:
    async with open_pair() as (client, there, _):
        ours, theirs = await pair_of_channels(client, there)
        with pytest.raises(SerializationError):
            await ours.send(object())
        link_of(client).put(FrameType.DATA, number_of(ours), 1, b"\xff")
        await ours.send("good")
        with pytest.raises(SerializationError):
            await theirs.receive()
        assert await theirs.receive() == "good"
