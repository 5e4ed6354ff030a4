"""One place for one identity: the newest connection that the server vouches for has it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, CloseCode, Closed, ConnectionClosed, ConnectionState, Opened
from heartline.wire import FrameType

from ..connection.helpers import QUIET, RawPeer, settle
from .helpers import vouch


async def test_the_newest_wins_and_the_old_one_stays_away(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET, authenticate=vouch) as server:
        url = server.urls[0]
        async with heartline.open_connection(url, identity="me", reconnect=Backoff()) as old:
            at_server = server.connections["me"]
            events = old.events()
            async with heartline.open_connection(url, identity="me") as new:
                await settle()
                with pytest.raises(ConnectionClosed) as caught:
                    await old.wait_open()
                assert (caught.value.code, caught.value.by_peer) == (CloseCode.REPLACED, True)
                assert [type(event).__name__ async for event in events] == ["Lost", "Closed"]
                await trio.sleep(100)  # and it does not come back
                assert server.connections["me"] is not at_server
                assert at_server.state is ConnectionState.CLOSED
                assert new.state is ConnectionState.OPEN
                await server.send_to("me", "for the newest")
                assert await new.receive() == "for the newest"
                with pytest.raises(ConnectionClosed) as closed:
                    await at_server.receive()
                assert closed.value.code == CloseCode.REPLACED
                assert not closed.value.by_peer


async def test_the_events_tell_which_connection(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET, authenticate=vouch) as server:
        events = server.events()
        url = server.urls[0]
        async with heartline.open_connection(url, identity="me", reconnect=None):
            old = server.connections["me"]
            async with heartline.open_connection(url, identity="me"):
                new = server.connections["me"]
                await settle()
                told = [await anext(events) for _ in range(3)]
    assert [type(event) for event in told] == [Opened, Opened, Closed]
    assert [event.connection for event in told] == [old, new, old]


async def test_a_dead_link_is_replaced_by_its_own_client(autojump_clock: MockClock) -> None:
    """Half open: the server has not noticed yet when the client is back. The old end takes nothing away."""
    async with heartline.open_server("memory://", heartbeat=QUIET, authenticate=vouch) as server:
        dead = await RawPeer.join(server.urls[0], identity="me")
        old = server.connections["me"]
        back = await RawPeer.join(server.urls[0], identity="me")
        await trio.sleep(5)  # the dead one never answers the goodbye
        assert old.state is ConnectionState.CLOSED
        assert server.connections["me"] is not old
        assert server.statistics().connections == 1
        assert [event.code for event in await dead.rest()] == [CloseCode.REPLACED]
        await server.send_to("me", b"x")
        (message,) = await back.events()
        assert (message.type, message.payload) == (FrameType.DATA, b"x")


async def test_a_storm_of_the_same_identity(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET, authenticate=vouch) as server:
        done = trio.Event()

        async def visit() -> None:
            try:
                async with heartline.open_connection(server.urls[0], identity="me", reconnect=None):
                    await done.wait()
            except ConnectionClosed:
                pass

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(visit)
            await trio.sleep(10)
            assert list(server.connections) == ["me"]
            assert server.connections["me"].state is ConnectionState.OPEN
            assert server.statistics().accepted == 30
            done.set()
        await settle()
        assert not server.connections
