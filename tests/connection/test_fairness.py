"""Who waits for whom on a connection: a reader that does not read stalls its own channel and nothing else."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    Channel,
    Connection,
    ConnectionLost,
    ConnectionState,
    Heartbeat,
    Limits,
    Lost,
    Server,
)
from heartline.connection._inbox import Inbox
from heartline.link._link import BURST
from heartline.link._reading import TURN
from heartline.session.messages import CONFIRMATION, MARK
from heartline.session.outbox import FRAGMENT_SIZE
from heartline.wire import Frame, FrameDecoder, FrameType, encode

from ..engine import link_of
from .helpers import BRISK, QUIET, RawPeer, counted_turns, cut, data, listen, pair_of_channels, settle

KEEPS = Limits(resume_window=60)
"""A peer with which frames are kept until they are confirmed."""


@heartline.service
class Echo:
    """What both ends call meanwhile."""

    def echo(self, value: Any) -> Any:
        return value


@asynccontextmanager
async def both_busy() -> AsyncIterator[tuple[Server, Connection, Connection]]:
    """A server, a client's connection and the server's to it; both serve, and both have heartbeats."""
    settings: dict[str, Any] = {"services": [Echo()], "heartbeat": BRISK}
    async with (
        heartline.open_server("memory://", **settings) as server,
        heartline.open_connection(server.urls[0], reconnect=Backoff(initial=0.1), **settings) as client,
    ):
        yield server, client, server.connections[client.id]


async def fill(channel: Channel, counted: list[int]) -> None:
    """Send long and short messages until the channel ends."""
    with contextlib.suppress(trio.BrokenResourceError):
        for length in itertools.cycle([1_000_000, 10, 70_000]):
            await channel.send(bytes(length))
            counted.append(length)


# A channel that nobody reads


async def everything_goes_on(server: Server, ends: tuple[Connection, Connection]) -> None:
    """Calls, the default channel, another channel and push, in both directions, take no time at all."""
    start = trio.current_time()
    for one, two in (ends, ends[::-1]):
        ours, theirs = await pair_of_channels(one, two, "lively")
        for number in range(20):
            assert await one.service(Echo).echo(number) == number
            await ours.send([number, bytes(100_000)])
            assert await theirs.receive() == [number, bytes(100_000)]
            await one.send(number)
            assert await two.receive() == number
        await ours.aclose()
    (client,) = (end for end in ends if end is not server.connections[end.id])
    async with client.subscribe("topic", on_gap="raise") as updates:
        for number in range(20):
            await server.publish("topic", number)
            assert (await anext(updates)).value == number
    assert trio.current_time() == start
    links = [end.statistics().links for end in ends]
    await trio.sleep(10 * BRISK.timeout)
    assert [end.statistics().links for end in ends] == links
    assert all(end.state is ConnectionState.OPEN for end in ends)
    # Whoever answers PINGs need not send any.
    trips = {end.statistics().round_trip for end in ends}
    assert 0 in trips
    assert trips <= {0, None}


@pytest.mark.parametrize("sender", ["client", "server"])
async def test_a_channel_nobody_reads_stalls_only_itself(sender: str, autojump_clock: MockClock) -> None:
    """Also after a resume; and what waited is there, in order, as soon as somebody reads."""
    async with both_busy() as (server, client, there), trio.open_nursery() as nursery:
        ends = (client, there) if sender == "client" else (there, client)
        stuck, unread = await pair_of_channels(*ends, "stuck")
        sent: list[int] = []
        nursery.start_soon(fill, stuck, sent)
        await settle()
        assert len(sent) < 4
        await everything_goes_on(server, ends)
        for resumed in (1, 2):
            cut(client)
            await trio.sleep(1)
            assert client.statistics().resumed == resumed
            await everything_goes_on(server, ends)
        assert len(sent) < 4
        for length in [1_000_000, 10, 70_000] * 5:
            assert len(await unread.receive()) == length
        nursery.cancel_scope.cancel()


# A peer that sends thousands of frames at once


@pytest.mark.parametrize("way", ["the link stays", "the link is lost", "the connection is closed"])
async def test_others_run_in_the_middle_of_a_read(
    way: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And while there is a session every frame that counts as received is handled."""
    put = Inbox.put

    def counting(inbox: Inbox, frame: Frame) -> None:
        turns.count()
        put(inbox, frame)

    monkeypatch.setattr(Inbox, "put", counting)
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], limits=KEEPS)
        (connection,) = server.connections.values()
        with counted_turns() as turns:
            await peer.send(*[data(b"")] * 5000)
            while sum(turns.counts) < 1000:
                await trio.lowlevel.checkpoint()
            assert sum(turns.counts) < 2000
            if way == "the link is lost":
                link_of(connection).lose(ConnectionLost("by the heartbeat"))
            elif way == "the connection is closed":
                await trio.aclose_forcefully(connection)
            await settle()
        handled = sum(turns.counts)
        if way == "the link is lost":  # what was not decoded is sent again on the next one
            assert handled == link_of(connection).session.received < 5000
        elif way == "the link stays":
            assert handled == 5000
        assert max(turns.counts) == TURN
        for _ in range(handled):
            assert await connection.receive() == b""


# Long messages and small ones


async def queue(connection: Connection, lengths: list[int]) -> None:
    """Queue long messages on channels of their own."""
    for number, length in enumerate(lengths):
        channel = await connection.open_channel(str(number))
        await channel.send(bytes(length))


@asynccontextmanager
async def open_to_keeper(
    *, raw: Limits = KEEPS, beat: Heartbeat = QUIET, **settings: Any
) -> AsyncIterator[tuple[Connection, RawPeer]]:
    """A client that keeps what is not confirmed, and its server, which is played by hand."""
    async with await listen() as listener, trio.open_nursery() as nursery:
        peers: list[RawPeer] = []

        async def admit() -> None:
            peers.append(await RawPeer.admit(await listener.accept(), limits=raw, heartbeat=beat))

        nursery.start_soon(admit)
        async with heartline.open_connection(listener.url, heartbeat=beat, **settings) as connection:
            yield connection, peers[0]
            await peers[0].stream.aclose()


async def ping(peer: RawPeer) -> None:
    """A sign of life that confirms nothing."""
    await peer.stream.send_all(encode([Frame(FrameType.PING, payload=MARK.pack(trio.current_time(), 0))]))


async def frames_until(peer: RawPeer, wanted: FrameType) -> list[Frame]:
    """The frames up to one of this type, fragments as they are."""
    decoder = FrameDecoder(Limits())
    frames: list[Frame] = []
    while not any(frame.type == wanted for frame in frames):
        frames += decoder.feed(bytes(await peer.stream.receive_some(1 << 20)))
    end = next(index for index, frame in enumerate(frames) if frame.type == wanted)
    return frames[: end + 1]


async def test_a_call_waits_for_one_write_at_most(autojump_clock: MockClock) -> None:
    async with open_to_keeper() as (client, peer), trio.open_nursery() as nursery:
        await queue(client, [5_000_000, 5_000_000])
        await settle()
        nursery.start_soon(client.service(Echo).echo, 1)
        await settle()
        before = await frames_until(peer, FrameType.CALL)
        assert sum(len(frame.payload) for frame in before) <= BURST + FRAGMENT_SIZE
        nursery.cancel_scope.cancel()


async def test_so_does_an_answer_to_a_ping(autojump_clock: MockClock) -> None:
    async with open_to_keeper() as (client, peer):
        await queue(client, [5_000_000])
        await settle()
        await ping(peer)
        await settle()
        before = await frames_until(peer, FrameType.PONG)
        assert sum(len(frame.payload) for frame in before) <= BURST + FRAGMENT_SIZE


# A peer that does not confirm, and one that does not read


async def test_a_peer_that_confirms_nothing_has_senders_wait_and_heartbeats_go_on(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(replay_buffer=200_000, write_buffer=50_000)
    raw = Limits(resume_window=60, window=1 << 30, memory=1 << 42)
    async with (
        open_to_keeper(raw=raw, beat=BRISK, limits=limits) as (client, peer),
        trio.open_nursery() as nursery,
    ):
        sent: list[int] = []
        got: list[Frame] = []

        @nursery.start_soon
        async def read() -> None:
            decoder = FrameDecoder(Limits())
            while data := bytes(await peer.stream.receive_some(1 << 20)):
                got.extend(decoder.feed(data))

        @nursery.start_soon
        async def send() -> None:
            while True:
                await client.send(bytes(5000))
                sent.append(5000)

        for _ in range(100):
            await ping(peer)
            await trio.sleep(1)
        kept = sum(frame.type == FrameType.DATA for frame in got)
        assert 200_000 / 5100 < kept < 260_000 / 5000
        assert kept * 5000 <= sum(sent) <= kept * 5000 + 60_000
        assert sum(frame.type == FrameType.PONG for frame in got) == 100
        waiting = len(sent)

        await peer.stream.send_all(encode([Frame(FrameType.ACK, payload=CONFIRMATION.pack(kept))]))
        await settle()
        assert len(sent) > waiting
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_peer_that_lives_and_does_not_read_is_not_given_up(autojump_clock: MockClock) -> None:
    """Whatever is queued for it, as long as it is within what those who wait for room may queue."""
    async with open_to_keeper(beat=BRISK) as (client, peer), trio.open_nursery() as nursery:
        stuck = await client.open_channel("stuck")
        nursery.start_soon(fill, stuck, [])
        for _ in range(1000):
            await ping(peer)
            await trio.sleep(BRISK.timeout - 0.1)
        assert client.state is ConnectionState.OPEN
        assert client.statistics().backlog < 2_000_000

        # Now it is silent, too.
        start = trio.current_time() - (BRISK.timeout - 0.1)
        events = client.events()
        lost = await anext(events)
        assert isinstance(lost, Lost)
        assert "heartbeat timeout" in str(lost.reason)
        assert BRISK.timeout <= trio.current_time() - start < 1.02 * BRISK.timeout
        nursery.cancel_scope.cancel()
