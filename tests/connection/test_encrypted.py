"""A connection over TLS: its streams write and close in other ways than a plain socket."""

from __future__ import annotations

import gc
import ssl

import pytest
import trio
import trustme

import heartline
from heartline import CloseCode, ConnectionClosed, ConnectionFailed, Limits
from tests.patience import PATIENCE

from .helpers import QUIET, RawPeer, no_leaks


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and a client's that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.parametrize("way", ["normally", "cancelled", "kicked"])
async def test_everything_arrives_and_nothing_is_left(
    scheme: str, way: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    huge = bytes(range(256)) * 8192
    start = trio.current_time()
    with no_leaks():
        with trio.CancelScope() as scope:
            async with (
                heartline.open_server(f"{scheme}://127.0.0.1:0", tls=contexts[0]) as server,
                heartline.open_connection(server.urls[0], tls=contexts[1], reconnect=None) as client,
            ):
                there = server.connections[client.id]
                assert there.peer.address.startswith("127.0.0.1:")
                await client.send(huge)
                assert await there.receive() == huge
                await there.send(huge)
                if way == "kicked":
                    await server.close_connection(client.id)
                    assert await client.receive() == huge
                    with pytest.raises(ConnectionClosed) as caught:
                        await client.receive()
                    assert caught.value.code == CloseCode.KICKED
                elif way == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        gc.collect()
    assert trio.current_time() - start < 2


async def test_a_certificate_that_is_not_trusted(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with no_leaks():
        async with heartline.open_server("tls://127.0.0.1:0", tls=contexts[0]) as server:
            with pytest.raises(ConnectionFailed):
                async with heartline.open_connection(server.urls[0], tls=ssl.create_default_context()):
                    pass
        gc.collect()


@pytest.mark.slow
async def test_a_peer_that_never_reads(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with no_leaks(), trio.fail_after(PATIENCE):
        async with heartline.open_server("tls://127.0.0.1:0", tls=contexts[0], heartbeat=QUIET) as server:
            peer = await RawPeer.join(
                server.urls[0], tls=contexts[1], limits=Limits(window=1 << 30, memory=1 << 42)
            )
            (connection,) = server.connections.values()
            with trio.move_on_after(0.05):
                while True:
                    await connection.send(bytes(100_000))
        await trio.aclose_forcefully(peer.stream)
        gc.collect()
