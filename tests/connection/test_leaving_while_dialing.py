"""A client that leaves during a handshake: the server that lets it in all the same hears a goodbye."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, ConnectionState, Peer

from .helpers import QUIET, cut

AT_ONCE = Backoff(initial=0.01, maximum=0.01)


class Slow:
    """Lets everybody in after so many seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked = 0

    async def __call__(self, peer: Peer) -> None:
        self.asked += 1
        await trio.sleep(self.seconds)


@pytest.mark.parametrize("resumes", [True, False])
async def test_nothing_is_left_of_a_client_that_leaves_as_it_dials(
    resumes: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    door = Slow()
    async with heartline.open_server("memory://", authenticate=door, heartbeat=QUIET) as server:
        async with heartline.open_connection(
            server.urls[0], identity="ada", reconnect=AT_ONCE, heartbeat=QUIET
        ) as client:
            there = server.connections["ada"]
            door.seconds = 0.5
            cut(client)
            if not resumes:
                await there.aclose()
            while door.asked < 2:
                await trio.sleep(0.001)
            assert client.state is ConnectionState.LOST
            began = trio.current_time()
        assert trio.current_time() - began <= 1
        await trio.sleep(1)
        assert not server.connections
        assert "another one will begin" not in caplog.text


async def test_nothing_is_left_of_a_first_connection_that_is_cancelled(autojump_clock: MockClock) -> None:
    door = Slow()
    door.seconds = 0.5
    async with heartline.open_server("memory://", authenticate=door, heartbeat=QUIET) as server:
        with trio.move_on_after(0.2) as scope:
            async with heartline.open_connection(server.urls[0], identity="ada", heartbeat=QUIET):
                pytest.fail("let in too early")
        assert scope.cancelled_caught
        assert trio.current_time() <= 1.2
        await trio.sleep(1)
        assert not server.connections
