"""The yardstick for many connections: a Trio task reading each, and direct non-blocking sends."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio

from tests.benchmarks._sockets import allow_descriptors, messages, private_kib
from tests.benchmarks.peers.bare import HEADER

PUSH = 0x30
RECEIVE_SIZE = 4096
POLL_INTERVAL = 0.02
"""Seconds between looks at the number of connections: far below what opening them takes."""

Report = Callable[[object], None]


def handshake(sock: socket.socket) -> None:
    """Nothing to say: the connection is the subscription."""


async def _serve(report: Report, scenario: Callable[[set[trio.SocketStream]], Awaitable[None]]) -> None:
    streams: set[trio.SocketStream] = set()

    async def handle(stream: trio.SocketStream) -> None:
        streams.add(stream)
        while await stream.receive_some(RECEIVE_SIZE):
            pass
        streams.discard(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    report(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        await scenario(streams)
        await trio.sleep_forever()


async def _until(streams: set[trio.SocketStream], count: int) -> None:
    while len(streams) < count:
        await trio.sleep(POLL_INTERVAL)


def serve_broadcast(report: Report, subscribers: int, count: int) -> None:
    """Publish `count` messages once all subscribers are there."""

    async def publish(streams: set[trio.SocketStream]) -> None:
        await _until(streams, subscribers)
        report(time.monotonic())
        for message in messages(count):
            frame = HEADER.pack(len(message), PUSH, 0, 0, 0) + message
            for stream in streams:
                try:
                    sent = cast(Any, stream.socket)._sock.send(frame)
                except BlockingIOError:
                    sent = 0
                if sent < len(frame):
                    await stream.send_all(frame[sent:])
            await trio.lowlevel.checkpoint()

    allow_descriptors(subscribers)
    trio.run(_serve, report, publish)


def serve_idle(report: Report, *stages: int) -> None:
    """Report the memory at each number of connections."""

    async def measure(streams: set[trio.SocketStream]) -> None:
        for stage in stages:
            await _until(streams, stage)
            gc.collect()
            report(private_kib())

    allow_descriptors(stages[-1])
    trio.run(_serve, report, measure)
