"""Names in use: whose they are where the server vouches for nobody."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, Connection, ConnectionRefusedByPeer, ConnectionState, Peer, Server

from ..connection.helpers import BRISK, QUIET, RawPeer, cut, settle
from .helpers import vouch

NEVER = heartline.Backoff(initial=1e5, maximum=1e5)
"""A client that does not come back in the time of a test."""


async def claim(server: Server, name: str) -> ConnectionRefusedByPeer | None:
    """What a stranger gets that claims this name."""
    try:
        async with heartline.open_connection(
            server.urls[0], identity=name, heartbeat=QUIET, reconnect=None
        ) as connection:
            assert connection.id == name
    except ConnectionRefusedByPeer as refused:
        return refused
    return None


async def check_unharmed(server: Server, client: Connection, there: Connection) -> None:
    await settle()
    assert server.connections[client.id] is there
    assert client.state is ConnectionState.OPEN
    assert client.statistics().links == 1
    await client.send("still here")
    assert await there.receive() == "still here"


@pytest.mark.parametrize("name", ["ada", None])
async def test_a_stranger_does_not_throw_anybody_out(name: str | None, autojump_clock: MockClock) -> None:
    """Neither from a name of its own nor from one that the server made up, and receipts and logs tell."""
    async with (
        heartline.open_server("memory://", heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], identity=name, heartbeat=QUIET) as client,
    ):
        there = server.connections[client.id]
        for _ in range(3):
            refused = await claim(server, client.id)
            assert refused is not None
            assert refused.code == CloseCode.IDENTITY_IN_USE
            assert not refused.terminal
            assert repr(client.id) in refused.reason
        await check_unharmed(server, client, there)


async def test_an_answer_of_none_vouches_for_nobody(autojump_clock: MockClock) -> None:
    """A password that all clients share says that it is one of them, and not which."""

    def of_ours(peer: Peer) -> None:
        if peer.credentials != "shared":
            raise PermissionError

    async with (
        heartline.open_server("memory://", authenticate=of_ours) as server,
        heartline.open_connection(server.urls[0], identity="ada", credentials="shared") as client,
    ):
        there = server.connections["ada"]
        with pytest.raises(ConnectionRefusedByPeer) as caught:
            async with heartline.open_connection(server.urls[0], identity="ada", credentials="shared"):
                pass
        assert caught.value.code == CloseCode.IDENTITY_IN_USE
        await check_unharmed(server, client, there)


async def test_the_name_of_a_lost_connection_is_free(autojump_clock: MockClock) -> None:
    """A client that was killed is there again before the session of its former life has ended."""
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        async with heartline.open_connection(
            server.urls[0],
            identity="ada",
            heartbeat=QUIET,
            reconnect=heartline.Backoff(initial=1e5, maximum=1e5),
        ) as killed:
            there = server.connections["ada"]
            cut(killed)
            await settle()
            assert there.state is ConnectionState.LOST
            assert await claim(server, "ada") is None
            assert there.state is ConnectionState.CLOSED
            assert trio.current_time() < 5


async def test_a_client_is_kept_out_by_its_own_dead_link_until_that_is_missed(
    autojump_clock: MockClock,
) -> None:
    async with heartline.open_server("memory://", heartbeat=BRISK) as server:
        await RawPeer.join(server.urls[0], identity="ada")  # its machine stands still from now on
        while (refused := await claim(server, "ada")) is not None:
            assert refused.code == CloseCode.IDENTITY_IN_USE
            assert trio.current_time() <= BRISK.timeout
            await trio.sleep(0.1)
        assert BRISK.timeout <= trio.current_time() < BRISK.timeout + 0.5


async def test_a_client_that_leaves_has_left_its_name(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], identity="ada")
        await peer.goodbye(CloseCode.NORMAL)
        await settle()
        assert await claim(server, "ada") is None


async def test_the_same_client_takes_the_place_of_its_own_link(autojump_clock: MockClock) -> None:
    """Its session could not go on, and the server has not noticed yet that the old link is dead."""
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peers, connections = [], []
        for number in (1, 2):
            attempt = (b"chosen at random", number)
            peers.append(await RawPeer.join(server.urls[0], identity="ada", attempt=attempt))
            connections.append(server.connections["ada"])
        await trio.sleep(5)
        assert [one.state for one in connections] == [ConnectionState.CLOSED, ConnectionState.OPEN]
        assert [event.code for event in await peers[0].rest()] == [CloseCode.REPLACED]


async def test_a_stolen_name_is_given_back_when_the_thief_leaves(autojump_clock: MockClock) -> None:
    """While nobody vouches, whoever comes first to a name that is free has it; the other tries on."""
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        async with heartline.open_connection(server.urls[0], identity="ada", heartbeat=QUIET) as client:
            cut(client)
            await settle()
            async with heartline.open_connection(server.urls[0], identity="ada", heartbeat=QUIET):
                await trio.sleep(200)
                assert client.state is ConnectionState.LOST
            await trio.sleep(60)
            assert client.state is ConnectionState.OPEN
            assert client.id == "ada"


async def test_a_name_that_the_server_vouches_for_is_taken_at_once(autojump_clock: MockClock) -> None:
    async with (
        heartline.open_server("memory://", heartbeat=QUIET, authenticate=vouch) as server,
        heartline.open_connection(server.urls[0], identity="ada", heartbeat=QUIET) as old,
    ):
        assert await claim(server, "ada") is None
        await settle()
        assert old.state is ConnectionState.CLOSED
        assert isinstance(await closed_for(old), heartline.ConnectionClosed)


async def closed_for(connection: Connection) -> BaseException:
    with pytest.raises(heartline.HeartlineError) as caught:
        await connection.wait_open()
    return caught.value
