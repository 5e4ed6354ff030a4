"""Our WebSocket against two others, as client and as server, encrypted or not."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import pytest
import trio
import trio_websocket
import websockets.exceptions
import websockets.trio.client
import websockets.trio.server

from heartline.transports._websocket_stream import MAX_MESSAGE
from tests.opening import open_listeners, open_stream

from .conftest import Contexts

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000, MAX_MESSAGE]


def payloads() -> list[bytes]:
    dice = random.Random(1)
    return [dice.randbytes(size) for size in SIZES]


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def our_echo(scheme: str, contexts: Contexts) -> AsyncIterator[str]:
    """The URL of an echo server of ours."""
    server_tls = contexts.server if scheme == "wss" else None
    listeners = await open_listeners(f"{scheme}://127.0.0.1:0/here", tls=server_tls)

    async def echo(stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        yield listeners[0].url
        nursery.cancel_scope.cancel()


async def echoed(payload: bytes, send: Callable[[], Any], receive: Callable[[], Any]) -> None:
    """Send a message and receive all of it, in whatever messages our echo made of it.

    At the same time, for an echo may have to wait for its reader.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = bytearray()
        while len(received) < len(payload):
            received += await receive()
    assert received == payload


class TestTheirClients:
    async def test_trio_websocket(self, scheme: str, contexts: Contexts) -> None:
        tls = contexts.client if scheme == "wss" else None
        async with our_echo(scheme, contexts) as url:
            async with trio_websocket.open_websocket_url(
                url, ssl_context=tls, subprotocols=["heartline"]
            ) as socket:
                assert socket.subprotocol == "heartline"
                for payload in payloads():
                    await echoed(payload, partial(socket.send_message, payload), socket.get_message)
                await socket.ping(b"still there?")

    async def test_websockets(self, scheme: str, contexts: Contexts) -> None:
        tls = contexts.client if scheme == "wss" else None
        async with our_echo(scheme, contexts) as url:
            async with websockets.trio.client.connect(url, ssl=tls, proxy=None) as socket:
                assert socket.subprotocol is None
                for payload in payloads():
                    # In fragments of any size, compression offered and turned down.
                    pieces = [payload[i : i + 7777] for i in range(0, len(payload), 7777)]
                    await echoed(payload, partial(socket.send, pieces or b""), socket.recv)
                await (await socket.ping(b"still there?")).wait()

    async def test_another_path(self, contexts: Contexts) -> None:
        async with our_echo("ws", contexts) as url:
            with pytest.raises(websockets.exceptions.InvalidStatus) as raised:
                async with websockets.trio.client.connect(url.replace("here", "there"), proxy=None):
                    pass
            assert raised.value.response.status_code == 404

    async def test_a_text_message_is_told_1003(self, contexts: Contexts) -> None:
        (listener,) = await open_listeners("ws://127.0.0.1:0")

        async def serve() -> None:
            async with await listener.accept() as stream:
                with pytest.raises(trio.BrokenResourceError, match="text message"):
                    await stream.receive_some()

        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with websockets.trio.client.connect(listener.url, proxy=None) as socket:
                await socket.send("text")
                with pytest.raises(websockets.exceptions.ConnectionClosedError) as raised:
                    await socket.recv()
                assert raised.value.rcvd is not None
                assert raised.value.rcvd.code == 1003


async def exchange(stream: trio.abc.Stream) -> None:
    """Send all payloads to an echo, whatever it makes of their boundaries."""
    everything = b"".join(payloads())

    async def send() -> None:
        for payload in payloads():
            await stream.send_all(payload)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = bytearray()
        while len(received) < len(everything):
            chunk = await stream.receive_some(10_000)
            assert chunk
            received += chunk
    assert received == everything


class TestTheirServers:
    async def test_trio_websocket(self, scheme: str, contexts: Contexts) -> None:
        tls = (contexts.server, contexts.client) if scheme == "wss" else (None, None)
        closed = trio.Event()
        codes: list[int] = []

        async def echo(request: Any) -> None:
            assert request.proposed_subprotocols == ("heartline",)
            socket = await request.accept(subprotocol="heartline")
            try:
                while True:
                    await socket.send_message(await socket.get_message())
            except trio_websocket.ConnectionClosed as end:
                codes.append(cast(Any, end.reason).code)
            closed.set()

        async with trio.open_nursery() as nursery:
            serve = partial(trio_websocket.serve_websocket, echo, "127.0.0.1", 0, tls[0])
            server = await nursery.start(serve)
            async with await open_stream(f"{scheme}://127.0.0.1:{server.port}/a", tls=tls[1]) as stream:
                await exchange(stream)
            await closed.wait()
            assert codes == [1000]
            nursery.cancel_scope.cancel()

    async def test_websockets(self, scheme: str, contexts: Contexts) -> None:
        tls = (contexts.server, contexts.client) if scheme == "wss" else (None, None)
        closed = trio.Event()

        async def echo(socket: Any) -> None:
            async for message in socket:
                await socket.send(message)
            closed.set()  # reached only after a clean close

        async with trio.open_nursery() as nursery:
            serve = partial(
                websockets.trio.server.serve, echo, 0, host="127.0.0.1", ssl=tls[0], ping_interval=0.01
            )
            server = await nursery.start(serve)
            port = server.listeners[0].socket.getsockname()[1]
            async with await open_stream(f"{scheme}://127.0.0.1:{port}/a", tls=tls[1]) as stream:
                await exchange(stream)
            await closed.wait()
            nursery.cancel_scope.cancel()

    async def test_a_server_that_closes(self, scheme: str, contexts: Contexts) -> None:
        tls = (contexts.server, contexts.client) if scheme == "wss" else (None, None)

        async def say_goodbye(socket: Any) -> None:
            await socket.send(b"goodbye")

        async with trio.open_nursery() as nursery:
            serve = partial(websockets.trio.server.serve, say_goodbye, 0, host="127.0.0.1", ssl=tls[0])
            server = await nursery.start(serve)
            port = server.listeners[0].socket.getsockname()[1]
            async with await open_stream(f"{scheme}://127.0.0.1:{port}", tls=tls[1]) as stream:
                assert await stream.receive_some() == b"goodbye"
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()
