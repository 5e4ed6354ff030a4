"""The built-in transports, one entry each: whatever holds for a transport is tested on all of them."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from wsproto import WSConnection
from wsproto.connection import ConnectionType

from heartline.transports import Listener, open_listeners, open_stream
from heartline.transports._url import NetworkURL
from heartline.transports._websocket_handshake import answer_request, await_acceptance, begin_request
from heartline.transports._websocket_stream import WebSocketStream

SSL = trio.SSLStream[trio.abc.Stream]


@dataclass(frozen=True)
class Contexts:
    """A server's TLS context, and a client's that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@dataclass(frozen=True)
class Case:
    """How to listen and connect with one transport."""

    name: str
    listen_url: str
    server_tls: ssl.SSLContext | None
    client_tls: ssl.SSLContext | None

    async def listen(self) -> Listener:
        (listener,) = await open_listeners(self.listen_url, tls=self.server_tls)
        return listener

    async def connect(self, url: str) -> trio.abc.Stream:
        return await open_stream(url, tls=self.client_tls)

    async def make_pair(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """A client's stream and the server's, opening handshakes done."""
        listener = await self.listen()
        async with listener, trio.open_nursery() as nursery:
            accepted: list[trio.abc.Stream] = []

            async def accept() -> None:
                stream = await listener.accept()
                if hasattr(stream, "do_handshake"):
                    await stream.do_handshake()
                accepted.append(stream)

            nursery.start_soon(accept)
            client = await self.connect(listener.url)
        return client, accepted[0]

    async def make_clogged(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """A pair that cannot send another byte, either way."""
        if self.name in ("memory", "tcp", "unix"):
            client, server = await self.make_pair()
            for stream in (client, server):
                await fill(stream)
            return client, server
        # A cancelled send would break these, so they stand on streams that have no buffer at all.
        client, server = trio.testing.lockstep_stream_pair()
        if self.name in ("tls", "wss"):
            client, server = self._encrypt(client, server)
        if self.name in ("ws", "wss"):
            client, server = websocket_over(client, server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        return client, server

    def _encrypt(self, client: trio.abc.Stream, server: trio.abc.Stream) -> tuple[SSL, SSL]:
        assert self.client_tls is not None
        assert self.server_tls is not None
        return (
            trio.SSLStream(client, self.client_tls, server_hostname="127.0.0.1", https_compatible=True),
            trio.SSLStream(server, self.server_tls, server_side=True, https_compatible=True),
        )


async def fill(stream: trio.abc.Stream) -> None:
    """Send until nothing more fits."""

    async def send() -> None:
        while True:
            await stream.send_all(bytes(10_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        # The system goes on to move bytes from one end to the other for a moment.
        await trio.testing.wait_all_tasks_blocked(cushion=0.05)
        nursery.cancel_scope.cancel()


def websocket_over(
    client: trio.abc.Stream, server: trio.abc.Stream, path: str = "/"
) -> tuple[WebSocketStream, WebSocketStream]:
    """A client's and a server's WebSocket over two connected streams, before the opening handshake."""
    protocol, request = begin_request(NetworkURL("ws", "127.0.0.1", 80, path))
    return (
        WebSocketStream(client, protocol, partial(await_acceptance, request=request)),
        WebSocketStream(server, WSConnection(ConnectionType.SERVER), partial(answer_request, path=path)),
    )


@pytest.fixture(scope="session")
def contexts() -> Contexts:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "::1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Contexts(server, client)


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory whose name is short enough for Unix sockets, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="hl-") as name:
        yield Path(name)


@pytest.fixture(params=["memory", "tcp", "unix", "tls", "ws", "wss"])
def case(request: pytest.FixtureRequest, contexts: Contexts, socket_dir: Path) -> Case:
    encrypted = request.param in ("tls", "wss")
    url = {"memory": "memory://", "unix": f"unix://{socket_dir}/s"}.get(
        request.param, f"{request.param}://127.0.0.1:0"
    )
    return Case(
        request.param, url, contexts.server if encrypted else None, contexts.client if encrypted else None
    )
