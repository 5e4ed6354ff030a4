"""`websockets` with many connections: its own `broadcast`, keepalive as it comes, no compression.

Compression is off: a compressor per connection would cost it memory in one scenario and speed in the other.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import ServerConnection, broadcast, serve

from tests.benchmarks._sockets import allow_descriptors, messages, private_kib

POLL_INTERVAL = 0.02
"""Seconds between looks at the number of connections: far below what opening them takes."""

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: aGVhcnRsaW5lLWJlbmNoLg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

Report = Callable[[object], None]


def handshake(sock: socket.socket) -> None:
    """Upgrade to WebSocket."""
    sock.sendall(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        data = sock.recv(4096)
        answer += data
        if not data or not answer.startswith(b"HTTP/1.1 101"[: len(answer)]):
            raise ConnectionError(f"the upgrade was refused: {answer!r}")


async def _serve(report: Report, scenario: Callable[[set[ServerConnection]], Awaitable[None]]) -> None:
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        await connection.wait_closed()
        connections.discard(connection)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        report(server.sockets[0].getsockname()[1])
        await scenario(connections)
        await server.serve_forever()


async def _until(connections: set[ServerConnection], count: int) -> None:
    while len(connections) < count:
        await asyncio.sleep(POLL_INTERVAL)


def serve_broadcast(report: Report, subscribers: int, count: int) -> None:
    """Publish `count` messages once all subscribers are there."""

    async def publish(connections: set[ServerConnection]) -> None:
        await _until(connections, subscribers)
        report(time.monotonic())
        for message in messages(count):
            broadcast(connections, message)
            # Lets the loop write what a socket did not take at once; all messages together fit its buffers.
            await asyncio.sleep(0)

    allow_descriptors(subscribers)
    asyncio.run(_serve(report, publish))


def serve_idle(report: Report, *stages: int) -> None:
    """Report the memory at each number of connections."""

    async def measure(connections: set[ServerConnection]) -> None:
        for stage in stages:
            await _until(connections, stage)
            gc.collect()
            report(private_kib())

    allow_descriptors(stages[-1])
    asyncio.run(_serve(report, measure))
