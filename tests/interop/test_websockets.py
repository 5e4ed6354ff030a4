"""Frames over WebSocket with the ``websockets`` package on the other end: it knows nothing of heartline.

The other end builds and takes frames by hand, as a client in another language would: what it sends is written
from the description of the wire, not by our session.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import cbor2
import trio
from websockets.trio.client import connect
from websockets.trio.server import serve

import heartline
from heartline.wire import Frame, FrameDecoder, FrameType, encode

LIMITS = {
    "frame_size": 65536,
    "message_size": 1 << 20,
    "items": 1 << 18,
    "memory": 50_000_000,
    "window": 65536,
    "calls": 16,
    "channels": 4,
}


@heartline.service
class Calculator:
    async def add(self, a: int, b: int) -> int:
        return a + b


class Peer:
    """The other end: frames by hand over a ``websockets`` connection."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.decoder = FrameDecoder()
        self.frames: list[Frame] = []

    async def send(self, *frames: Frame, cut: int | None = None) -> None:
        data = encode(frames)
        for start in range(0, len(data), cut or len(data)):
            await self.socket.send(data[start : start + (cut or len(data))])

    async def receive(self, frame_type: FrameType) -> Frame:
        while True:
            while self.frames:
                frame = self.frames.pop(0)
                if frame.type == frame_type:
                    return frame
            self.frames += self.decoder.feed(await self.socket.recv())


def hello() -> Frame:
    body = {"version": 1, "limits": LIMITS, "heartbeat_timeout": 30.0, "identity": "by hand"}
    return Frame(FrameType.HELLO, payload=cbor2.dumps(body))


def call(number: int, target: bytes, *args: Any) -> Frame:
    head = bytes([1, 0]) + len(target).to_bytes(2) + (0).to_bytes(4)
    return Frame(FrameType.CALL, id=number, payload=head + target + cbor2.dumps(list(args)))


async def test_their_client_at_our_server() -> None:
    async with heartline.open_server("ws://127.0.0.1:0/x", services=[Calculator()]) as server:
        async with connect(server.urls[0], compression=None, proxy=None) as socket:
            peer = Peer(socket)
            await peer.send(hello(), cut=5)
            welcome = cbor2.loads((await peer.receive(FrameType.WELCOME)).payload)
            assert welcome["session"] == "by hand"
            await peer.send(call(7, b"Calculator.add", 20, 22), call(8, b"Calculator._private"), cut=3)
            result = await peer.receive(FrameType.RESULT)
            assert (result.id, result.payload) == (7, b"\x01" + cbor2.dumps(42))
            fault = await peer.receive(FrameType.FAULT)
            assert fault.id == 8
            assert cbor2.loads(fault.payload)["kind"] == "unknown"
            await peer.send(Frame(FrameType.DATA, payload=b"raw"))
            connection = server.connections["by hand"]
            assert await connection.receive() == b"raw"
            await connection.send(b"back")
            assert (await peer.receive(FrameType.DATA)).payload == b"back"
            await peer.send(Frame(FrameType.PING, payload=bytes(16)))
            assert (await peer.receive(FrameType.PONG)).payload[:8] == bytes(8)


async def test_our_client_at_their_server() -> None:
    async def handler(socket: Any) -> None:
        peer = Peer(socket)
        greeting = cbor2.loads((await peer.receive(FrameType.HELLO)).payload)
        assert greeting["version"] == 1
        body = {"version": 1, "session": "theirs", "limits": LIMITS, "heartbeat_timeout": 30.0}
        await peer.send(Frame(FrameType.WELCOME, payload=cbor2.dumps(body)), cut=4)
        request = await peer.receive(FrameType.CALL)
        assert request.payload.endswith(b"Echo.say" + cbor2.dumps(["hi"]))
        await peer.send(Frame(FrameType.RESULT, id=request.id, payload=b"\x01" + cbor2.dumps("hi!")), cut=6)
        assert (await peer.receive(FrameType.DATA)).payload == b"message"
        await peer.send(Frame(FrameType.DATA, payload=b"answer"))
        goodbye = cbor2.loads((await peer.receive(FrameType.GOAWAY)).payload)
        assert goodbye["code"] == heartline.CloseCode.NORMAL

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1", compression=None))
        port = server.listeners[0].socket.getsockname()[1]
        async with heartline.open_connection(f"ws://127.0.0.1:{port}/") as connection:
            assert connection.id == "theirs"
            assert await connection.service("Echo").say("hi") == "hi!"
            await connection.send(b"message")
            assert await connection.receive() == b"answer"
        await server.aclose()
        nursery.cancel_scope.cancel()
