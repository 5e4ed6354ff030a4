"""The heartbeat on a live connection, in both directions, on a virtual clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import ConnectionLost, ConnectionState, Heartbeat, Limits, Lost, Peer
from heartline.session import Role
from heartline.session.messages import MARK
from heartline.wire import Frame, FrameType
from tests.connection.helpers import BRISK, QUIET, RawPeer, data, open_pair, open_to_raw, settle
from tests.opening import open_stream

PING, PONG = FrameType.PING, FrameType.PONG


async def test_a_server_that_goes_silent_is_lost_at_the_timeout(autojump_clock: MockClock) -> None:
    async with open_to_raw(heartbeat=BRISK) as (connection, _peer):
        events = connection.events()
        lost = await anext(events)
        assert isinstance(lost, Lost)
        assert isinstance(lost.reason, ConnectionLost)
        assert "nothing was heard for 3 s" in str(lost.reason)
        assert trio.current_time() == 3


async def test_a_client_that_goes_silent_is_lost_at_the_timeout(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=BRISK) as server:
        silent = await RawPeer.join(server.urls[0], identity="silent")
        lively = await RawPeer.join(server.urls[0], identity="lively")
        events = server.events()
        async with trio.open_nursery() as nursery:

            async def live() -> None:
                while True:
                    await lively.send(Frame(PING, payload=MARK.pack(0.0, 0)))
                    await trio.sleep(2.9)

            nursery.start_soon(live)
            closed = await anext(events)
            assert closed.connection.id == "silent"
            assert isinstance(closed, heartline.Closed)
            assert isinstance(closed.reason, ConnectionLost)
            assert trio.current_time() == 3
            await trio.sleep(50)
            assert set(server.connections) == {"lively"}
            nursery.cancel_scope.cancel()
        assert [frame for frame in await silent.rest() if isinstance(frame, Frame)] == []


async def test_a_peer_that_swallows_everything_is_lost_too(autojump_clock: MockClock) -> None:
    """Half open: our writes go into the void, and even a full buffer does not keep us."""
    async with open_to_raw(heartbeat=BRISK) as (connection, _peer):
        with pytest.raises(trio.WouldBlock):
            while True:
                connection.send_nowait(bytes(60_000))
        with pytest.raises(ConnectionLost):
            await connection.send(b"one more")
        assert trio.current_time() == 3


@pytest.mark.parametrize("gap", [0.5, 2.9])
async def test_any_traffic_is_life(gap: float, autojump_clock: MockClock) -> None:
    async with open_to_raw(heartbeat=BRISK) as (connection, peer):
        for _ in range(20):
            await trio.sleep(gap)
            await peer.send(data(b"x"))
            assert await connection.receive() == b"x"
        assert connection.state is ConnectionState.OPEN
        assert connection.statistics().silence < gap


async def test_half_a_frame_is_life(autojump_clock: MockClock) -> None:
    async with open_to_raw(heartbeat=BRISK) as (connection, peer):
        for byte in b"\0\0\0\2\x11\0\0\0\0\0\0\0hi":
            await peer.stream.send_all(bytes([byte]))
            await trio.sleep(2.5)
        assert await connection.receive() == b"hi"


async def test_pings_go_out_only_into_silence(autojump_clock: MockClock) -> None:
    async with open_to_raw(heartbeat=Heartbeat(interval=1, timeout=1000)) as (connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.rest)
            for _ in range(30):
                await trio.sleep(0.8)
                connection.send_nowait(b"x")
            assert PING not in peer.kinds()
            last = trio.current_time()
            await trio.sleep(20)
            times = [MARK.unpack(frame.payload)[0] for frame in peer.control if frame.type == PING]
            assert len(times) >= 20
            for time in times:
                assert 7 / 8 <= time - last <= 1
                last = time
            nursery.cancel_scope.cancel()


async def test_the_peers_patience_counts_too(autojump_clock: MockClock) -> None:
    """Who would be given up after three seconds speaks every second, whatever its own settings."""
    async with open_to_raw(raw={"heartbeat": BRISK}) as (_connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.rest)
            await trio.sleep(10.5)
            nursery.cancel_scope.cancel()
        assert 10 <= peer.kinds().count(PING) <= 12


async def test_the_round_trip_is_measured(autojump_clock: MockClock) -> None:
    async with open_to_raw(heartbeat=BRISK) as (connection, peer):
        assert connection.statistics().round_trip is None
        while PING not in peer.kinds():
            with trio.move_on_after(0.01):
                await peer.events()
        (ping,) = [frame for frame in peer.control if frame.type == PING]
        await trio.sleep(0.25)
        await peer.send(Frame(PONG, payload=ping.payload[:8] + bytes(8)))
        await trio.sleep(0.001)
        assert connection.statistics().round_trip == pytest.approx(0.25, abs=0.011)


async def test_idle_pairs_live_for_hours(autojump_clock: MockClock) -> None:
    async with open_pair(heartbeat=Heartbeat()) as (client, there, _):
        await trio.sleep(2 * 3600)
        assert client.state is there.state is ConnectionState.OPEN
        assert client.statistics().links == 1
        assert client.statistics().silence <= 10


async def test_what_arrived_while_this_program_was_busy_is_life(mock_clock: MockClock) -> None:
    async with open_to_raw(heartbeat=BRISK) as (connection, peer):
        for _ in range(50):
            await peer.send(data(b"x"))
            mock_clock.jump(100)  # nobody ran meanwhile: the byte and the timeout are both there now
            await connection.receive()
            await settle()
            assert connection.statistics().silence == 0
        assert connection.state is ConnectionState.OPEN
        assert connection.statistics().links == 1


async def test_time_in_which_this_program_stood_still_is_nobodys_silence(mock_clock: MockClock) -> None:
    """Whatever the peer said meanwhile is still on its way: it gets the time again."""
    async with open_to_raw(heartbeat=BRISK) as (connection, peer):
        for _ in range(5):
            mock_clock.jump(100)
            await settle()
            assert connection.state is ConnectionState.OPEN
            await peer.send(data(b"x"))
            await connection.receive()
        # But silence while it runs is silence.
        for _ in range(400):
            mock_clock.jump(0.01)
            await settle()
        assert connection.state is ConnectionState.CLOSED


async def test_a_newer_link_with_an_earlier_deadline_is_noticed(autojump_clock: MockClock) -> None:
    """One timer for all: it sleeps until the old link's time, and the new link has something due before."""
    async with heartline.open_server("memory://", heartbeat=Heartbeat(interval=100, timeout=1000)) as server:
        patient = await RawPeer.join(server.urls[0], heartbeat=QUIET)
        await trio.sleep(50)
        hasty = await RawPeer.join(server.urls[0], heartbeat=BRISK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient.rest)
            nursery.start_soon(hasty.rest)
            await trio.sleep(5.2)
            assert hasty.kinds().count(PING) == 5
            assert patient.kinds().count(PING) == 0
            await trio.sleep(45)
            assert patient.kinds().count(PING) == 1
            nursery.cancel_scope.cancel()


async def test_a_slow_handshake_is_no_silence(autojump_clock: MockClock) -> None:
    """Checking credentials may take longer than a timeout; the peer could not speak meanwhile."""

    async def slow(peer: Peer) -> str | None:
        await trio.sleep(2 * BRISK.timeout)
        return peer.identity

    async with heartline.open_server("memory://", heartbeat=BRISK, authenticate=slow) as server:
        limits = Limits(resume_window=0)
        peer = RawPeer.of(await open_stream(server.urls[0], tls=None), Role.CLIENT, limits=limits)
        peer.session.hello(identity="me")
        await peer.flush()
        await peer.events()
        await trio.sleep(0.9 * BRISK.timeout)
        assert server.connections["me"].state is ConnectionState.OPEN
        await trio.sleep(0.2 * BRISK.timeout)
        assert not server.connections
