"""A client's connection outlives its links: when it tries again, when it does not, and what is told."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    CloseCode,
    Closed,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRefusedByPeer,
    ConnectionState,
    Lost,
    Reconnected,
)
from heartline.connection import connect
from heartline.session import GoAway, Role
from heartline.wire import FrameType

from .helpers import QUIET, Highest, RawPeer, cut, data, listen, no_leaks, open_pair, settle

Serve = Callable[[int, trio.abc.Stream], Awaitable[None]]
SECOND = Backoff(initial=1.0, maximum=1.0)


class Scripted:
    """A server that is played by hand: what it does with the n-th visitor is a function's business."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.visits: list[float] = []


@asynccontextmanager
async def scripted(serve: Serve) -> AsyncIterator[Scripted]:
    async with await listen() as listener, trio.open_nursery() as nursery:
        script = Scripted(listener.url)

        async def accept() -> None:
            while True:
                stream = await listener.accept()
                script.visits.append(trio.current_time())
                nursery.start_soon(serve, len(script.visits), stream)

        nursery.start_soon(accept)
        yield script
        nursery.cancel_scope.cancel()


async def welcome_and_leave(_visit: int, stream: trio.abc.Stream) -> None:
    async with stream:
        await RawPeer.admit(stream)


async def welcome_for_a_second(_visit: int, stream: trio.abc.Stream) -> None:
    async with stream:
        await RawPeer.admit(stream)
        await trio.sleep(1)


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
async def test_it_says_who_it_is_each_time(claimed: str | None, autojump_clock: MockClock) -> None:
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
        expected = itertools.accumulate(backoff.delays(random.Random(5)), initial=1.0)
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


# When it does not


@pytest.mark.parametrize("code", [c for c in CloseCode if not c.is_terminal(c)])
async def test_it_comes_back_after_a_goodbye_that_is_not_terminal(
    code: CloseCode, autojump_clock: MockClock
) -> None:
    async with open_pair(reconnect=SECOND) as (client, there, server):
        events = client.events()
        there.close(code, "come back later")
        lost = await anext(events)
        assert isinstance(lost.reason, ConnectionClosed)
        assert (lost.reason.code, lost.reason.by_peer) == (code, True)
        assert isinstance(await anext(events), Reconnected)


@pytest.mark.parametrize("code", [c for c in CloseCode if c.is_terminal(c)] + [150, 10_000])
async def test_a_terminal_goodbye_is_the_end(code: int, autojump_clock: MockClock) -> None:
    async def serve(_visit: int, stream: trio.abc.Stream) -> None:
        peer = await RawPeer.admit(stream)
        await trio.sleep(1)
        await peer.goodbye(code, "stay away")
        await peer.events()
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND) as connection,
    ):
        with pytest.raises(ConnectionClosed, match="stay away") as caught:
            await connection.receive()
        assert (caught.value.code, caught.value.by_peer) == (code, True)
        await trio.sleep(100)
        assert len(script.visits) == 1


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_refusal_on_the_way_back(terminal: bool, autojump_clock: MockClock) -> None:
    code = CloseCode.UNAUTHENTICATED if terminal else CloseCode.OVERLOADED

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 1:
            await RawPeer.admit(stream)
            await trio.sleep(1)
        elif visit < 5:
            peer = RawPeer.of(stream, Role.SERVER)
            await peer.hello()
            peer.session.refuse(code, "no")
            await peer.flush()
        else:
            await RawPeer.admit(stream)
            await trio.sleep(100)
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND, heartbeat=QUIET) as connection,
    ):
        events = connection.events()
        assert isinstance(await anext(events), Lost)
        told = await anext(events)
        if terminal:
            assert isinstance(told, Closed)
            assert isinstance(told.reason, ConnectionRefusedByPeer)
            assert told.reason.code == code
            with pytest.raises(ConnectionRefusedByPeer):
                await connection.wait_open()
        else:
            assert isinstance(told, Reconnected)
        assert len(script.visits) == (2 if terminal else 5)


async def test_without_reconnect_the_first_loss_is_the_end(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=None) as (client, there, _):
        cut(there)
        with pytest.raises(ConnectionLost):
            await client.receive()
        with pytest.raises(ConnectionLost):
            await client.wait_open()
        assert client.state is ConnectionState.CLOSED


# Closed in between


async def test_closed_while_it_sleeps_between_attempts(autojump_clock: MockClock) -> None:
    with no_leaks():
        async with (
            scripted(welcome_for_a_second) as script,
            heartline.open_connection(
                script.url, reconnect=Backoff(initial=60, maximum=60), rng=Highest()
            ) as connection,
        ):
            await trio.sleep(10)
            events = connection.events()
            await connection.aclose()
            assert trio.current_time() == 10
            assert connection.state is ConnectionState.CLOSED
            await trio.sleep(1000)
            assert len(script.visits) == 1
            assert connection.state is ConnectionState.CLOSED
            (closed,) = [event async for event in events]
            assert isinstance(closed.reason, ConnectionClosed)
            assert not closed.reason.by_peer
            with pytest.raises(ConnectionClosed):
                await connection.send(b"x")


async def test_closed_while_it_shakes_hands_again(autojump_clock: MockClock) -> None:
    ends = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 1:
            await welcome_for_a_second(visit, stream)
        else:
            await stream.receive_some()
            ends.append(await stream.receive_some())

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND) as connection,
    ):
        await trio.sleep(5)
        assert len(script.visits) == 2
        await connection.aclose()
        await settle()
        assert ends == [b""]
        await trio.sleep(100)
        assert len(script.visits) == 2


async def test_closed_in_the_moment_it_is_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt has succeeded, but its client was not told yet: no link may be left."""
    ends = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        peer = await RawPeer.admit(stream)
        if visit == 1:
            await trio.sleep(1)
            await stream.aclose()
        else:
            ends.append(await peer.rest())

    async def connect_and_close(connection: Connection, *args: Any, **settings: Any) -> Any:
        made = await connect(connection, *args, **settings)
        if connection.statistics().links == 1:
            connection.finish(ConnectionClosed("closed", code=0, by_peer=False))
        return made

    monkeypatch.setattr("heartline.endpoints._open.connect", connect_and_close)
    with no_leaks():
        async with (
            scripted(serve) as script,
            heartline.open_connection(script.url, reconnect=SECOND) as connection,
        ):
            await trio.sleep(5)
            assert ends == [[]]
            assert connection.state is ConnectionState.CLOSED
            assert connection.statistics().links == 1


async def test_goodbyes_that_cross_do_not_bring_it_back(autojump_clock: MockClock) -> None:
    """Both sides leave in the same moment: the server's invitation to come back is not taken up."""
    visits = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        visits.append(visit)
        peer = await RawPeer.admit(stream)
        await trio.sleep(1)
        await peer.goodbye(CloseCode.GOING_AWAY, "restarting")
        await peer.rest()
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND) as connection,
    ):
        await trio.sleep(1)
        await connection.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await connection.receive()
        assert not caught.value.by_peer
        await trio.sleep(100)
        assert visits == [1]


async def test_the_goodbye_of_a_closed_connection(autojump_clock: MockClock) -> None:
    said = []

    async def serve(_visit: int, stream: trio.abc.Stream) -> None:
        peer = await RawPeer.admit(stream)
        said.extend(await peer.events())
        await peer.goodbye(CloseCode.NORMAL)
        said.extend(await peer.rest())

    async with scripted(serve) as script, heartline.open_connection(script.url) as connection:
        await connection.aclose()
        assert trio.current_time() == 0
        await connection.aclose()
    (goodbye,) = said
    assert isinstance(goodbye, GoAway)
    assert goodbye.code == CloseCode.NORMAL
