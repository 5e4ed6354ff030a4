"""The built-in transports, one entry each: whatever holds for a transport is tested on all of them."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType

import pytest
import trio
import trio.testing
import trustme
from wsproto import WSConnection
from wsproto.connection import ConnectionType

from heartline.transports import Listener, TransportContext, TransportOptions, open_listeners, open_stream
from heartline.transports._url import NetworkURL
from heartline.transports._websocket_handshake import answer_request, await_acceptance, begin_request
from heartline.transports._websocket_stream import WebSocketStream
from tests.opening import make_context

SSL = trio.SSLStream[trio.abc.Stream]
Pair = tuple[trio.abc.Stream, trio.abc.Stream]


@dataclass(frozen=True)
class Contexts:
    """A server's TLS context, and a client's that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to listen and connect with one transport that has no handshake of its own."""

    listen_url: str
    tls: Contexts | None = None
    refusal: type = ConnectionRefusedError
    """Of the error that causes the :exc:`ConnectionFailed` where nobody listens."""
    address: str = r"127\.0\.0\.1:\d+"
    """What the address of a peer looks like."""

    async def listen(self, context: TransportContext | None = None) -> Listener:
        context = replace(context or make_context(), tls=self.tls.server if self.tls else None)
        (listener,) = await open_listeners(self.listen_url, context)
        return listener

    async def connect(self, url: str, context: TransportContext | None = None) -> trio.abc.Stream:
        context = replace(context or make_context(), tls=self.tls.client if self.tls else None)
        return await open_stream(url, context)

    async def reach(self, url: str) -> trio.abc.Stream:
        """Connect as far as that needs no answer from whoever accepts."""
        return await self.connect(url)

    async def make_pair(self, context: TransportContext | None = None) -> Pair:
        """A client's stream and the server's, opening handshakes done."""
        listener = await self.listen(context)
        async with listener, trio.open_nursery() as nursery:
            accepted: list[trio.abc.Stream] = []

            async def accept() -> None:
                stream = await listener.accept()
                if hasattr(stream, "do_handshake"):
                    await stream.do_handshake()
                accepted.append(stream)

            nursery.start_soon(accept)
            client = await self.connect(listener.url, context)
        return client, accepted[0]

    async def make_clogged(self, context: TransportContext) -> Pair:
        """A pair that cannot send another byte, either way."""
        client, server = await self.make_pair(context)
        for stream in (client, server):
            await fill(stream)
        return client, server


@dataclass(frozen=True, kw_only=True)
class LayeredCase(Case):
    """A transport that shakes hands over TCP."""

    layers: tuple[Callable[[trio.abc.Stream, trio.abc.Stream], Pair], ...]

    async def reach(self, url: str) -> trio.abc.Stream:
        authority = url.split("/")[2]
        return await open_stream(f"tcp://{authority}", make_context())

    async def make_clogged(self, context: TransportContext) -> Pair:
        # A cancelled send would break these, so they stand on streams that have no buffer at all.
        pair: Pair = trio.testing.lockstep_stream_pair()
        for layer in self.layers:
            pair = layer(*pair)
        async with trio.open_nursery() as nursery:
            for stream in pair:
                nursery.start_soon(stream.do_handshake)  # type: ignore[attr-defined]
        return pair


def encrypted_over(tls: Contexts, client: trio.abc.Stream, server: trio.abc.Stream) -> tuple[SSL, SSL]:
    return (
        trio.SSLStream(client, tls.client, server_hostname="127.0.0.1", https_compatible=True),
        trio.SSLStream(server, tls.server, server_side=True, https_compatible=True),
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
    answer = partial(answer_request, path=path, options=TransportOptions())
    return (
        WebSocketStream(client, protocol, partial(await_acceptance, request=request)),
        WebSocketStream(server, WSConnection(ConnectionType.SERVER), answer),
    )


CASES: dict[str, Callable[[Contexts, Path], Case]] = {
    "memory": lambda tls, place: Case(listen_url="memory://", refusal=NoneType, address="MemoryStream"),
    "tcp": lambda tls, place: Case(listen_url="tcp://127.0.0.1:0"),
    "unix": lambda tls, place: Case(
        listen_url=f"unix://{place}/s", refusal=FileNotFoundError, address="unix"
    ),
    "tls": lambda tls, place: LayeredCase(
        listen_url="tls://127.0.0.1:0", tls=tls, layers=(partial(encrypted_over, tls),)
    ),
    "ws": lambda tls, place: LayeredCase(listen_url="ws://127.0.0.1:0", layers=(websocket_over,)),
    "wss": lambda tls, place: LayeredCase(
        listen_url="wss://127.0.0.1:0", tls=tls, layers=(partial(encrypted_over, tls), websocket_over)
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, contexts: Contexts, socket_dir: Path) -> Case:
    return CASES[request.param](contexts, socket_dir)


@pytest.fixture(params=["tcp", "tls", "ws", "wss"])
def networked(request: pytest.FixtureRequest, contexts: Contexts, socket_dir: Path) -> Case:
    return CASES[request.param](contexts, socket_dir)


@pytest.fixture(params=["tls", "wss"])
def encrypted(request: pytest.FixtureRequest, contexts: Contexts, socket_dir: Path) -> Case:
    return CASES[request.param](contexts, socket_dir)


@pytest.fixture(params=["ws", "wss"])
def websocket(request: pytest.FixtureRequest, contexts: Contexts, socket_dir: Path) -> Case:
    return CASES[request.param](contexts, socket_dir)


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
