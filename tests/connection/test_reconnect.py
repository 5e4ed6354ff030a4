"""A client's connection outlives its links: when it tries again, when it does not, and what is told."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    Closed,
    ConnectionFailed,
    ConnectionLost,
    ConnectionState,
    Lost,
    Reconnected,
)
from heartline.session import Role
from heartline.wire import FrameType

from .helpers import QUIET, Highest, RawPeer, cut, data, open_pair, settle
from .scripted import SECOND, scripted, welcome_and_leave, welcome_for_a_second


def names(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


# Coming back


async def test_it_comes_back_as_the_same(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=SECOND) as (client, there, server):
        events, name = client.events(), client.id
        for links in range(2, 5):
            cut(there)
            lost = await anext(events)
            assert isinstance(lost, Lost)
            assert isinstance(lost.reason, ConnectionLost)
            assert client.state is ConnectionState.LOST
            with pytest.raises(ConnectionLost, match="no link"):
                await client.send(b"x")
            assert isinstance(await anext(events), Reconnected)
            assert client.state is ConnectionState.OPEN
            assert client.statistics().links == links
            assert client.id == name
            await settle()
            assert list(server.connections) == [name]
            there = server.connections[name]
            await client.send(b"again")
            assert await there.receive() == b"again"
    assert names([event async for event in events]) == ["Lost", "Closed"]


@pytest.mark.parametrize("claimed", [None, "me"])
async def test_a_claimed_identity_is_claimed_again(claimed: str | None, autojump_clock: MockClock) -> None:
    """What the user claimed as it was; otherwise what the server made up the first time."""
    seen = []

    async def serve(_visit: int, stream: trio.abc.Stream) -> None:
        async with stream:
            peer = RawPeer.of(stream, Role.SERVER)
            seen.append((await peer.hello()).identity)
            peer.session.welcome("as the server likes")
            await peer.flush()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, identity=claimed, reconnect=SECOND) as connection,
    ):
        await trio.sleep(3)
        assert connection.id == "as the server likes"
    assert seen[0] == claimed
    assert set(seen[1:]) == {claimed or "as the server likes"}


async def test_wait_open_waits_for_the_next_link(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=Backoff(initial=10, maximum=10), rng=Highest()) as (client, there, _):
        await client.wait_open()
        assert trio.current_time() == 0
        cut(there)
        await settle()
        await client.wait_open()
        assert trio.current_time() == 10
        await client.send(b"x")


async def test_messages_and_readers_outlive_the_link(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=SECOND) as (client, there, server):
        await there.send(b"before")
        await settle()
        cut(there)
        await settle()
        assert await client.receive() == b"before"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                assert await client.receive() == b"after"

            await client.wait_open()
            await settle()
            await server.send_to(client.id, b"after")


async def test_credit_of_an_old_link_is_not_given_on_the_new_one(autojump_clock: MockClock) -> None:
    peers = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        async with stream:
            peer = await RawPeer.admit(stream)
            peers.append(peer)
            await peer.send(data(b"visit %d" % visit), data(b"visit %d" % visit))
            if visit == 2:
                await peer.rest()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND, heartbeat=QUIET) as connection,
    ):
        await settle()
        await connection.wait_open()
        await settle()
        got = [await connection.receive() for _ in range(3)]
        assert got == [b"visit 1", b"visit 1", b"visit 2"]
        await settle()
        assert peers[1].kinds() == [FrameType.HELLO, FrameType.CREDIT]


# When it tries


async def test_the_attempts_are_where_the_jitter_puts_them(autojump_clock: MockClock) -> None:
    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 1:
            await RawPeer.admit(stream)
            await trio.sleep(1)
        await stream.aclose()

    backoff = Backoff(initial=0.5, maximum=20, attempts=8)
    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=backoff, rng=random.Random(5)) as connection,
    ):
        with pytest.raises(ConnectionFailed, match="gave up"):
            await connection.receive()
        rng = random.Random(5)
        rng.random()  # where the shares of the heartbeats begin
        expected = itertools.accumulate(backoff.delays(rng), initial=1.0)
        assert script.visits == pytest.approx([0, *list(expected)[1:]])


async def test_links_that_die_at_once_make_no_hot_loop(autojump_clock: MockClock) -> None:
    async with (
        scripted(welcome_and_leave) as script,
        heartline.open_connection(script.url, reconnect=Backoff(), rng=Highest()),
    ):
        await trio.sleep(300)
    gaps = [b - a for a, b in itertools.pairwise(script.visits)]
    assert gaps[:9] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0])
    assert set(gaps[9:]) == {30.0}


async def test_a_link_that_lived_long_begins_the_delays_anew(autojump_clock: MockClock) -> None:
    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        async with stream:
            await RawPeer.admit(stream)
            await trio.sleep(8.5 if visit == 4 else 0)

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=Backoff(initial=1, maximum=8), rng=Highest()),
    ):
        await trio.sleep(23)
    assert script.visits[:7] == [0, 1, 3, 7, 16.5, 17.5, 19.5]


async def test_a_link_that_was_made_is_no_failed_attempt(autojump_clock: MockClock) -> None:
    """``attempts`` counts those in a row: a network that drops every link once in a while ends nothing."""
    async with (
        scripted(welcome_for_a_second) as script,
        heartline.open_connection(script.url, reconnect=Backoff(attempts=2), rng=Highest()) as connection,
    ):
        await trio.sleep(300)
        assert len(script.visits) > 10
        assert connection.state is not ConnectionState.CLOSED


async def test_giving_up_is_the_end(autojump_clock: MockClock) -> None:
    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 1:
            await RawPeer.admit(stream)
            await trio.sleep(1)
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=Backoff(attempts=3)) as connection,
    ):
        events = connection.events()
        told = [event async for event in events]
        assert names(told) == ["Lost", "Closed"]
        assert len(script.visits) == 1 + 3
        assert connection.state is ConnectionState.CLOSED
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="gave up") as caught:
                await connection.wait_open()
            assert isinstance(caught.value.__cause__, ConnectionFailed)
        assert isinstance(told[-1], Closed)
        assert told[-1].reason is caught.value
        with pytest.raises(ConnectionLost, match="has ended"):
            await connection.send(b"x")
        with pytest.raises(ConnectionLost, match="has ended"):
            await connection.open_channel("x")


async def test_an_attempt_that_hangs_is_bounded_by_the_handshakes_time(autojump_clock: MockClock) -> None:
    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 2:
            await trio.sleep(1000)
        await RawPeer.admit(stream)
        await trio.sleep(1 if visit == 1 else 1000)
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND, rng=Highest(), heartbeat=QUIET) as connection,
    ):
        await trio.sleep(20)
        assert script.visits == [0, 2, 2 + 10 + 1]
        assert connection.state is ConnectionState.OPEN
