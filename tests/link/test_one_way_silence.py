"""Health in both directions: each side notices by itself that the other's bytes have stopped."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Closed, ConnectionLost, ConnectionState, Heartbeat, Lost
from heartline.testing import memory_pair
from tests.connection.helpers import BRISK
from tests.opening import open_stream
from tests.patience import PATIENCE


class Deaf:
    """A network between two ends that loses what goes in one direction, or in both, from some time on."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    async def carry(self, client: trio.abc.Stream, server: trio.abc.Stream) -> None:
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, "up", client, server)
            nursery.start_soon(self._pump, "down", server, client)

    async def _pump(self, name: str, source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while chunk := await source.receive_some(65536):
                if name not in self.lost:
                    await sink.send_all(chunk)
            if name not in self.lost:
                await trio.aclose_forcefully(sink)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def two_ends(kind: str) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    if kind == "memory://":
        return memory_pair()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        return client, await listener.accept()


async def one_way(kind: str, lost: set[str], heartbeat: Heartbeat) -> tuple[str, str]:
    """Why the client lost its link, and why the server did; never by the other's telling."""
    network = Deaf()
    async with (
        heartline.open_server(kind, heartbeat=heartbeat) as server,
        trio.open_nursery() as nursery,
    ):
        here, near = await two_ends(kind)
        far = await open_stream(server.urls[0])
        nursery.start_soon(network.carry, near, far)
        async with heartline.open_connection(here, heartbeat=heartbeat, reconnect=None) as client:
            there = server.connections[client.id]
            await trio.sleep(2 * heartbeat.timeout)
            assert client.state is there.state is ConnectionState.OPEN
            reasons: dict[str, str] = {}
            network.lost = lost
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as watch:

                    async def why(name: str, connection: heartline.Connection) -> None:
                        async for event in connection.events():
                            assert isinstance(event, Lost | Closed)
                            assert isinstance(event.reason, ConnectionLost)
                            reasons.setdefault(name, str(event.reason))

                    watch.start_soon(why, "client", client)
                    watch.start_soon(why, "server", there)
        nursery.cancel_scope.cancel()
    return reasons["client"], reasons["server"]


CUTS = [({"up"}, (False, True)), ({"down"}, (True, False)), ({"up", "down"}, (True, True))]


@pytest.mark.parametrize(("lost", "silent"), CUTS)
async def test_each_side_notices_by_itself(
    lost: set[str], silent: tuple[bool, bool], autojump_clock: MockClock
) -> None:
    reasons = await one_way("memory://", lost, BRISK)
    assert tuple("nothing was heard" in reason for reason in reasons) == silent


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "silent"), CUTS)
async def test_each_side_notices_by_itself_on_a_socket(lost: set[str], silent: tuple[bool, bool]) -> None:
    reasons = await one_way("tcp://127.0.0.1:0", lost, Heartbeat(interval=0.1, timeout=0.3))
    assert tuple("nothing was heard" in reason for reason in reasons) == silent
